"""The recipe of a segmentation network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gencomp.recipes.schema import BaseRecipe, Section


class SegmentationNetworks(Section):
    classes: int = Field(
        ge=2, description="number of classes; pixels with other labels, such as void, do not count"
    )
    widths: tuple[Annotated[int, Field(ge=8, multiple_of=8)], ...] = Field(
        (16, 32, 64, 128, 128),
        min_length=1,
        description="numbers of channels, multiples of 8, of the convolutions, each of which halves"
        " the sides",
    )


class SegmentationRecipe(BaseRecipe):
    """Minimise the cross-entropy of the label of each pixel."""

    system: Literal["segmentation"] = "segmentation"
    stage: Literal["cross_entropy"] = "cross_entropy"
    networks: SegmentationNetworks

    @property
    def label_map(self) -> str:
        """The name of the label map, the only one of `data.maps`."""
        return self.data.maps[0]

    @model_validator(mode="after")
    def _one_map(self) -> SegmentationRecipe:
        if len(self.data.maps) != 1:
            raise ValueError(
                f"data.maps names {len(self.data.maps)} maps, but a segmentation network is trained"
                " on one label map"
            )
        return self
