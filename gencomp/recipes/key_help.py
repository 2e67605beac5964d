"""The keys that can be set in a recipe, as text for a terminal."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gencomp.recipes.schema import BaseRecipe
from gencomp.validation import Key, keys

_TYPES = {bool: "true|false", int: "INT", float: "FLOAT", str: "STR", type(None): "null"}
_LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_WIDTH = 100
_UNBROKEN = "\N{NO-BREAK SPACE}"
# The column of the descriptions, as in the help of the other options; a longer key stands alone.
_COLUMN = 34


class KeyHelp(NamedTuple):
    """The keys of a recipe that can be set.

    Attributes:
        names: the dotted keys.
        text: one entry for each key, section by section.
    """

    names: tuple[str, ...]
    text: str


def describe(
    recipe: BaseRecipe,
    title: str,
    width: int = _WIDTH,
    is_shown: Callable[[str], bool] = lambda key: True,
    notes: Mapping[str, str] | None = None,
) -> KeyHelp:
    """The keys of a recipe with their types, ranges, meanings and values.

    `system` and `stage` are not among them, since they decide which keys there are.

    Args:
        recipe: the recipe whose values are shown as the defaults.
        title: the line above all sections.
        width: the number of columns of the terminal.
        is_shown: tells whether a dotted key is listed.
        notes: the text that stands in place of the default of a dotted key.
    """
    notes = notes or {}
    raw = recipe.model_dump(mode="json")
    listed = [
        key
        for key in keys(type(recipe))
        if key.section and key.model is None and is_shown(key.dotted)
    ]
    lines = textwrap.wrap(title, width)
    # A section's own keys stand before the sections inside it.
    for section in dict.fromkeys(key.section for key in listed):
        lines += ["", *_heading(type(recipe), section, width)]
        for key in listed:
            if key.section == section:
                note = notes.get(key.dotted, f"default: {_value(_at(raw, key))}")
                lines += _entry(key, note, width)
    return KeyHelp(tuple(key.dotted for key in listed), "\n".join(lines))


def type_of(annotation: Any) -> str:
    """The name of a type in the help, such as `INT`, `FLOAT|null`, `dcgan|he` or `[INT, INT]`.

    >>> type_of(tuple[int, ...] | None)
    '[INT, ...]|null'
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_of(inner[0])
    if origin is Literal:
        return "|".join(map(str, inner))
    if origin in (Union, UnionType):
        return "|".join(map(type_of, inner))
    if origin is tuple:
        return f"[{', '.join('...' if one is Ellipsis else type_of(one) for one in inner)}]"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"{{{', '.join(annotation.model_fields)}}}"
    return _TYPES[annotation]


def range_of(field: FieldInfo) -> str:
    """The numbers that a key allows, such as `at least 1`; empty if it allows all."""
    if own := _limits(field.metadata):
        return own
    items = dict.fromkeys(filter(None, map(_limits, _items(field.annotation))))
    return f"each {' or '.join(items)}" if items else ""


def _limits(metadata: list[Any]) -> str:
    found = {name: getattr(one, name) for name in _LIMITS for one in metadata if hasattr(one, name)}
    if {*found} == {"ge", "le"}:
        return f"{found['ge']} to {found['le']}"
    return " and ".join(f"{_LIMITS[name]} {limit}" for name, limit in found.items())


def _items(annotation: Any) -> Iterator[list[Any]]:
    """The metadata of the items of a list."""
    for inner in get_args(annotation):
        if get_origin(annotation) is not tuple:
            yield from _items(inner)
        elif get_origin(inner) is Annotated:
            yield [about for field in get_args(inner)[1:] for about in field.metadata]


def _at(raw: Mapping[str, Any], key: Key) -> Any:
    for section in key.section:
        raw = raw[section]
    return raw[key.name]


def _value(value: Any) -> str:
    """A value as it is written after its key in a recipe."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _heading(model: type[BaseModel], section: tuple[str, ...], width: int) -> list[str]:
    """The lines of a section's name and of the first paragraph of its model's docstring."""
    (key,) = (key for key in keys(model) if key.path == section)
    about = vars(key.model).get("__doc__")  # not the docstring of a base class
    if about is None:
        return [key.dotted]
    paragraph = about.split("\n\n")[0]
    return textwrap.wrap(f"{key.dotted}: {paragraph}", width, subsequent_indent="  ")


def _entry(key: Key, note: str, width: int) -> list[str]:
    """The lines of a key: its name and type, then its meaning, range and default."""
    name = f"  --{key.dotted} {type_of(key.field.annotation)}"
    meaning = "; ".join(filter(None, [key.field.description, range_of(key.field)]))
    indent = " " * _COLUMN
    # textwrap breaks no line at this space, so a default stays in one piece.
    whole = f"{meaning} ({note.replace(' ', _UNBROKEN)})"
    wrapped = textwrap.wrap(whole, width, initial_indent=indent, subsequent_indent=indent)
    lines = [line.replace(_UNBROKEN, " ") for line in wrapped]
    if len(name) + 2 > _COLUMN:
        return [name, *lines]
    return [name.ljust(_COLUMN) + lines[0].lstrip(), *lines[1:]]
