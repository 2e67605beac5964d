"""What pydantic finds wrong with a file or with options, as one sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

Location = Sequence[str | int]

_LONGEST_VALUE = 100
# pydantic speaks of Python's types; files have lists and mappings.
_WORDS = {"tuple_type": "it should be a list", "model_type": "it should be a mapping of keys"}


def key_name(location: Location) -> str:
    """The name of a key in a file: `section.key`."""
    return ".".join(map(str, location))


def option_name(location: Location) -> str:
    """The name of an option of the command line, `--batch-size`; empty for all of them together."""
    return f"--{str(location[0]).replace('_', '-')}" if location else ""


def sentence(
    error: ValidationError, model: type[BaseModel], name: Callable[[Location], str] = key_name
) -> str:
    """The first error in words: the key, its value and what is allowed.

    Args:
        error: What validation by the model has raised.
        model: The model.
        name: How the user has written the key at a place in the model.
    """
    first = error.errors(include_url=False)[0]
    place, kind, value = first["loc"], first["type"], first["input"]
    key = name(place)
    if kind == "extra_forbidden":
        allowed = ", ".join(_keys_at(model, place[:-1]))
        return f"unknown key {key}" + (f"; allowed here are {allowed}" if allowed else "")
    if kind == "missing":
        return f"{key} is missing"
    if kind == "value_error":
        reason = str(first["ctx"]["error"])
        return f"{key}: {reason}" if key else reason
    message = first["msg"][0].lower() + first["msg"][1:]
    if kind == "json_invalid":
        return message
    message = _WORDS.get(kind, message.replace("input should", "it should"))
    return f"{key} is {_short(value)}, but {message}" if key else message


def _keys_at(model: type[BaseModel], place: Location) -> list[str]:
    """The keys that a place in a model may have; none where it is no section with keys."""
    section: type[BaseModel] | None = model
    for part in place:
        if isinstance(part, str):
            annotations = {} if section is None else _annotations(section)
            section = _section(annotations.get(part))
    return [] if section is None else sorted(_annotations(section))


def _annotations(model: type[BaseModel]) -> dict[str, Any]:
    """The types of a model's fields, by their names in a file."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _section(annotation: Any) -> type[BaseModel] | None:
    """The model that a type is, may be or is a list of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, tuple):
        return next(filter(None, map(_section, get_args(annotation))), None)
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
