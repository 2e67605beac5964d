"""A model file holds a trained codec: its networks, its tables, its recipe and its model card.

It is one safetensors file. The tensors are the state of `System.coding_networks`, under the names
that they have there. The file's metadata has the one entry `gencomp`, a `Description` as JSON with
sorted keys, so the same content gives the same bytes. Reading runs no code of the file: the
networks are built from the recipe as for training, and nothing is unpickled.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import safetensors
import safetensors.torch
import torch
from pydantic import Field, JsonValue, ValidationError
from torch import Tensor

from gencomp.coding.fingerprint import of_tensors
from gencomp.errors import InputError
from gencomp.recipes.schema import Section
from gencomp.validation import sentence

SUFFIX = ".gencomp"
_ENTRY = "gencomp"
_CONTENT_BYTES = 16


class Metric(Section):
    """A measured number with its 95 % interval."""

    value: float | None = None
    interval: tuple[float | None, float | None] | None = None
    images: int | None = None


class Result(Section):
    """What one measurement of the model found, and how it measured."""

    command: str = Field(description="command that measured, such as gencomp files")
    name: str = Field(description="name of the measurement")
    metrics: dict[str, Metric]
    protocol: dict[str, JsonValue]

    def value(self, metric: str) -> float | None:
        """The value of a metric; None where it was not measured."""
        found = self.metrics.get(metric)
        return None if found is None else found.value


class Data(Section):
    """The images that a model was trained on."""

    name: str = Field(description="name of the shard set that evaluations use")
    hashes: dict[str, str] = Field(description="hashes of the shard sets, by name")
    split: str = Field(description="split that was trained on")


class Card(Section):
    """What somebody who finds a model needs to know of it."""

    name: str = Field(description="name of the run")
    licence: str | None = Field(description="licence of the model; null if none was stated")
    gencomp: str = Field(description="version of gencomp that wrote the file")
    step: int = Field(ge=0, description="number of steps that the weights were trained for")
    weights: str = Field(description="hash of the checkpoint")
    data: Data
    maps: tuple[str, ...] = Field(description="maps of pixels that the codec may use")
    results: tuple[Result, ...] = Field(description="what was measured of these weights")

    def use(self, file: str) -> list[str]:
        """The command lines, and the line of Python, that use a file of this model."""
        maps = " ".join(f"{name}={name.upper()}.png" for name in self.maps)
        given = f" --maps {maps}" if maps else ""
        of_maps = f", maps={{{', '.join(f'{name!r}: ...' for name in self.maps)}}}" if maps else ""
        return [
            f"gencomp compress {shlex.quote(file)} IMAGE.png OUT.gcp" + given,
            f"gencomp decompress {shlex.quote(file)} OUT.gcp BACK.png",
            f"gencomp.load({file!r}).compress(image{of_maps})",
        ]


class Fingerprints(Section):
    """The fingerprints of the codec, in hexadecimal digits."""

    writer: str
    reader: str


class Description(Section):
    """Everything in a model file but the tensors."""

    format: Literal[1] = 1
    content: str = Field("", description="hash of the tensors and of the rest of the description")
    recipe: dict[str, JsonValue] = Field(description="recipe of the stage, with every value")
    parents: dict[str, dict[str, JsonValue]] = Field(
        description="recipe of each run that the stage started from, by role"
    )
    fingerprints: Fingerprints
    card: Card

    @property
    def method(self) -> str:
        """The system and the stage."""
        return f"{self.recipe.get('system')}/{self.recipe.get('stage')}"


def pack(description: Description, tensors: Mapping[str, Tensor]) -> bytes:
    """The content of a model file.

    Args:
        description: the description, whose hash of the content is filled in here.
        tensors: the state of the codec's networks.
    """
    packed = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    whole = description.model_copy(update={"content": _content(description, packed)})
    return safetensors.torch.save(packed, {_ENTRY: _text(whole)})


def read(path: Path) -> tuple[Description, dict[str, Tensor]]:
    """The description and the tensors of a model file.

    Raises:
        InputError: the file cannot be read, is no model file, is damaged, or holds values that are
            not finite.
    """
    description = read_description(path)
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise _unreadable(path, error) from None
    if description.content != _content(description, tensors):
        raise InputError(f"model file {path} is damaged: its content does not match its hash")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"model file {path} holds values in {name!r} that are not finite")
    return description, tensors


def read_description(path: Path) -> Description:
    """The description in a model file, whose tensors are not read.

    Raises:
        InputError: the file cannot be read, or is no model file of this format.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_ENTRY)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if text is None:
        raise InputError(
            f"{path} is a safetensors file but no model file, which `gencomp export` writes"
        )
    try:
        return Description.model_validate_json(text)
    except ValidationError as error:
        said = " ".join(sentence(error, Description).split())
        raise InputError(f"the description in model file {path} is refused: {said}") from None


def _unreadable(path: Path, error: Exception) -> InputError:
    said = " ".join(str(error).split()).rstrip(".")
    return InputError(f"{path} cannot be read as a model file of `gencomp export`: {said}")


def _content(description: Description, tensors: Mapping[str, Tensor]) -> str:
    """The hash of tensors and of a description without its own hash."""
    said = _text(description.model_copy(update={"content": ""}))
    return of_tensors(said, tensors, _CONTENT_BYTES).hex()


def _text(description: Description) -> str:
    return json.dumps(description.model_dump(mode="json"), sort_keys=True)
