"""The errors that pydantic finds in a file or in options, each as one sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from types import UnionType
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from gencomp.errors import InputError

Location = Sequence[str | int]
Model = TypeVar("Model", bound=BaseModel)

_LONGEST_VALUE = 100
# The similarity of two names, as difflib measures it, from which one may be meant by the other:
# `maximise` is not close enough to `minimise` (0.75), but `color` is to `colour` (0.91).
_NEAR = 0.8
_MOST_SUGGESTIONS = 3
# pydantic speaks of Python's types, but files have lists and mappings.
_WORDS = {"tuple_type": "it should be a list", "model_type": "it should be a mapping of keys"}


class Key(NamedTuple):
    """A key that a file may have, with its field in the model.

    Attributes:
        section: the names of the sections that contain the key, from the outermost.
        name: the key's own name.
        field: the field of the key in its model.
    """

    section: tuple[str, ...]
    name: str
    field: FieldInfo

    @property
    def path(self) -> tuple[str, ...]:
        return (*self.section, self.name)

    @property
    def dotted(self) -> str:
        return ".".join(self.path)

    @property
    def model(self) -> type[BaseModel] | None:
        """The model of a key that is a section; None where the key has a value."""
        annotation = self.field.annotation
        return None if get_origin(annotation) is tuple else _section(annotation)


def keys(model: type[BaseModel], section: tuple[str, ...] = ()) -> Iterator[Key]:
    """All keys of a model in their order, where each section is followed by its own keys.

    A list of sections is one key, since its items have no names.
    """
    for name, field in _fields(model).items():
        key = Key(section, name, field)
        yield key
        if key.model is not None:
            yield from keys(key.model, (*section, name))


def key_name(location: Location) -> str:
    """The name of a key in a file, such as `section.key`."""
    return ".".join(map(str, location))


def option_name(location: Location) -> str:
    """The name of an option, such as `--batch-size`; empty for an error of all options together."""
    return f"--{str(location[0]).replace('_', '-')}" if location else ""


def checked(model: type[Model], values: dict[str, Any]) -> Model:
    """The model of values that options of the command line have given.

    Raises:
        InputError: a value is out of range; the sentence names the option.
    """
    try:
        return model(**values)
    except ValidationError as error:
        raise InputError(sentence(error, model, option_name)) from None


def sentence(
    error: ValidationError, model: type[BaseModel], name: Callable[[Location], str] = key_name
) -> str:
    """The first error as a sentence that names the key, its value and what is allowed.

    Args:
        error: the error that validation by the model has raised.
        model: the model.
        name: maps a place in the model to the key as the user has written it.
    """
    first = error.errors(include_url=False)[0]
    place, kind, value = first["loc"], first["type"], first["input"]
    key = name(place)
    if kind == "extra_forbidden":
        return _unknown(model, place, value, name)
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


def nearest(wrong: str, known: Sequence[str]) -> list[str]:
    """The dotted keys that may be meant by a key that does not exist, the likeliest first.

    Keys are compared by their last parts, so that `loss.mmd_wieght`, `training.mmd_weight` and
    `mmd_weight` all lead to `loss.mmd_weight`. The sections decide between keys of the same name;
    if no section is close, each of these keys may be meant.
    """
    section, _, last = wrong.rpartition(".")
    close = get_close_matches(last, sorted({_last(one) for one in known}), n=1, cutoff=_NEAR)

    def likeness(one: str) -> float:
        return SequenceMatcher(None, section, one.rpartition(".")[0]).ratio()

    found = sorted((one for one in known if _last(one) in close), key=likeness, reverse=True)
    near = found and likeness(found[0]) >= _NEAR
    return found[: 1 if near else _MOST_SUGGESTIONS]


def did_you_mean(names: Sequence[str]) -> str:
    """The question whether one of these names is meant."""
    return f"did you mean {' or '.join(filter(None, [', '.join(names[:-1]), names[-1]]))}?"


def _last(dotted: str) -> str:
    return dotted.rpartition(".")[2]


def _unknown(
    model: type[BaseModel], place: Location, value: Any, name: Callable[[Location], str]
) -> str:
    """The sentence about a key that does not exist."""
    if near := _near(model, place, value):
        return f"unknown key {name(place)}; {did_you_mean(near)}"
    allowed = ", ".join(_keys_at(model, place[:-1]))
    return f"unknown key {name(place)}" + (f"; allowed here are {allowed}" if allowed else "")


def _near(model: type[BaseModel], place: Location, value: Any) -> list[str]:
    """The keys that may be meant: sections if the value is a mapping, and otherwise values."""
    is_section = isinstance(value, Mapping)
    known = [key.dotted for key in keys(model) if (key.model is not None) == is_section]
    if not is_section:  # `keys` leaves out the keys of items in a list of sections
        known += [key_name((*place[:-1], key)) for key in _keys_at(model, place[:-1])]
    return nearest(key_name(place), list(dict.fromkeys(known)))


def _keys_at(model: type[BaseModel], place: Location) -> list[str]:
    """The keys of the section at a place in a model; none if there is no section."""
    section: type[BaseModel] | None = model
    for part in place:
        if isinstance(part, str):
            field = None if section is None else _fields(section).get(part)
            section = None if field is None else _section(field.annotation)
    return [] if section is None else sorted(_fields(section))


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A model's fields by their names in a file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _section(annotation: Any) -> type[BaseModel] | None:
    """The model in a type that is a model, an optional model or a list of models."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, tuple):
        return next(filter(None, map(_section, get_args(annotation))), None)
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
