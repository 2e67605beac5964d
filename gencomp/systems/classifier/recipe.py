"""The recipe of a classifier."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gencomp.recipes.schema import BaseRecipe, Section


class ClassifierNetworks(Section):
    classes: int = Field(ge=2, description="number of classes; labels are 0 to classes - 1")
    widths: tuple[Annotated[int, Field(ge=8, multiple_of=8)], ...] = Field(
        (16, 32, 64, 128, 128),
        min_length=1,
        description="numbers of channels, multiples of 8, of the convolutions, each of which halves"
        " the sides; the last one is the number of features",
    )


class ClassifierRecipe(BaseRecipe):
    """Minimise the cross-entropy of the labels."""

    system: Literal["classifier"] = "classifier"
    stage: Literal["cross_entropy"] = "cross_entropy"
    networks: ClassifierNetworks
