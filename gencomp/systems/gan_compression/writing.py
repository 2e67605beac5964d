"""What files of selective compression keep, as recipes and the command line say it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from gencomp.recipes.schema import WritingSection


def _listed(value: Any) -> Any:
    """The parts of a text such as person,car; a single number is a list of its own."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int) else value


Corner = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=1)]


class CodecSection(WritingSection):
    """What files keep of an image in mode selective: the pixels of any of these, and of the mask.

    The mask is the map `mask` of an image.
    """

    keep: Annotated[tuple[int | str, ...] | None, BeforeValidator(_listed)] = Field(
        None,
        description="classes that files keep in mode selective, as ids or by labels.class_names,"
        " such as person,car; [] keeps none",
    )
    keep_instances: Annotated[tuple[int, ...] | None, BeforeValidator(_listed)] = Field(
        None, description="instances that files keep in mode selective, such as 12,40"
    )
    keep_box: Annotated[tuple[Corner, Corner, Side, Side] | None, BeforeValidator(_listed)] = Field(
        None,
        description="rectangle that files keep in mode selective: X,Y,WIDTH,HEIGHT in pixels from"
        " the upper left corner",
    )
