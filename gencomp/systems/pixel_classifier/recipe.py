"""The recipe of a classifier of pixels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gencomp.recipes.schema import BaseRecipe, Section


class PixelClassifierNetworks(Section):
    classes: int = Field(
        ge=2, description="number of classes; pixels with other labels, such as void, do not count"
    )
    widths: tuple[Annotated[int, Field(ge=8, multiple_of=8)], ...] = Field(
        (16, 32, 64, 128, 128),
        min_length=1,
        description="numbers of channels, multiples of 8, of the convolutions, each of which halves"
        " the sides",
    )


class PixelClassifierRecipe(BaseRecipe):
    """Minimise the cross-entropy of the label of each pixel."""

    system: Literal["pixel_classifier"] = "pixel_classifier"
    stage: Literal["cross_entropy"] = "cross_entropy"
    networks: PixelClassifierNetworks

    @property
    def label_map(self) -> str:
        """The name of the label map, the only one of `data.maps`."""
        return self.data.maps[0]

    @model_validator(mode="after")
    def _one_map(self) -> PixelClassifierRecipe:
        if len(self.data.maps) != 1:
            raise ValueError(
                f"data.maps names {len(self.data.maps)} maps, but a classifier of pixels is trained"
                " on one label map"
            )
        return self
