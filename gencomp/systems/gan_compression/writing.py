"""What files of selective compression keep, as recipes and the command line say it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from gencomp.recipes.schema import WritingSection

MASK = "mask"  # the map of an image whose pixels are kept where it is not 0


def _listed(value: Any) -> Any:
    """The parts of a text such as person,car or 12,40; a single number is a list of its own."""
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",")]
        return [int(p) if p.isascii() and p.isdecimal() else p for p in parts]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


Id = Annotated[int, Field(ge=0, strict=True)]
Side = Annotated[int, Field(ge=1, strict=True)]
Name = Annotated[str, Field(min_length=1, strict=True)]


class CodecSection(WritingSection):
    """What files keep of an image in mode selective: the pixels of any of these, and of the mask.

    The mask is the map `mask` of an image.
    """

    keep: Annotated[tuple[Id | Name, ...] | None, BeforeValidator(_listed)] = Field(
        None,
        description="classes that files keep in mode selective, as ids or by name, such as"
        " person,car; [] keeps none",
    )
    keep_instances: Annotated[tuple[Id, ...] | None, BeforeValidator(_listed)] = Field(
        None, description="instances that files keep in mode selective, such as 12,40"
    )
    keep_box: Annotated[tuple[Id, Id, Side, Side] | None, BeforeValidator(_listed)] = Field(
        None,
        description="rectangle that files keep in mode selective: X,Y,WIDTH,HEIGHT in pixels from"
        " the upper left corner",
    )


def class_ids(keep: Sequence[int | str], classes: int, names: Sequence[str]) -> list[int]:
    """The ids of classes that are given as ids or by name.

    A class with several names, such as "car, auto" of ADE20k, may be called by the first.

    Raises:
        ValueError: there is no such class.
    """
    ids = {name.partition(",")[0]: number for number, name in reversed([*enumerate(names)])}
    ids |= {name: number for number, name in enumerate(names)}
    found = []
    for one in keep:
        if isinstance(one, int) and one < classes:
            found.append(one)
        elif isinstance(one, str) and one in ids:
            found.append(ids[one])
        else:
            known = f" or one of {', '.join(names)}" if names else ", and they have no names here"
            raise ValueError(
                f"codec.keep names the class {one}, but a class is a number from 0 to"
                f" {classes - 1}{known}"
            )
    return found
