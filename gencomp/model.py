"""A trained codec from a model file, for the command line and for Python.

import gencomp

model = gencomp.load("mine.gencomp")
stream = model.compress("photo.png")
image_HWC = model.decompress(stream)
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from gencomp import model_file, recipes
from gencomp.coding.container import MAX_PIXELS
from gencomp.coding.noise import first_index
from gencomp.errors import InputError
from gencomp.model_file import Card, Description
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Codec, Picture, System
from gencomp.systems import build_system, plan_system

# The systems of the shipped recipes have a few hundred layers; a recipe that asks for more than so
# many would only keep the reader busy.
_MOST_LAYERS = 20_000
# Networks for training alone are made too, of so many values and times those of the codec at most.
_MOST_VALUES, _MOST_TIMES = 1 << 26, 16
_ORIENTATION = 0x0112


@dataclass(frozen=True, eq=False)
class Model:
    """A trained codec from a model file.

    Attributes:
        path: the file.
        description: everything in the file but the tensors.
        tensors: the state of the codec's networks.
        writing: other values of how files are written, by dotted key of the recipe.
    """

    path: Path
    description: Description
    tensors: Mapping[str, Tensor]
    writing: Mapping[str, Any] = field(default_factory=dict)

    @property
    def card(self) -> Card:
        """The model card."""
        return self.description.card

    def compress(
        self,
        image: np.ndarray | Image.Image | str | Path,
        maps: Mapping[str, np.ndarray] | None = None,
    ) -> bytes:
        """The compressed file of one image.

        It is the file that `gencomp compress` writes for the same image file. The randomness that
        sender and receiver share depends on the file, or on the pixels where there is none.

        Args:
            image: uint8 RGB pixels [H, W, 3], a PIL image, or the path of an image file, of 8 bits
                a channel, upright, opaque, in RGB or in grey.
            maps: the maps of the image's pixels (label ids, a mask) by name, [H, W], for a codec
                that uses maps.

        Raises:
            InputError: the image is of another kind, or the codec refuses it or its maps.
        """
        pixels_HWC, index = _pixels(image)
        return self.codec().compress(Picture(pixels_HWC, maps or {}, index))

    def decompress(
        self,
        stream: bytes,
        *,
        place: int = 0,
        draw: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> np.ndarray:
        """The image of a compressed file, uint8 RGB [H, W, 3].

        Args:
            stream: the content of the file.
            place: the number of the picture in a file of several, from 0.
            draw: the number of the draw of the decoder's noise; None is the draw that every decoder
                shows.
            max_pixels: the number of pixels that are decoded at most.

        Raises:
            InputError: the file is damaged, was written by another encoder, or claims too much.
        """
        return self.codec().decompress(stream, place=place, draw=draw, max_pixels=max_pixels)

    def recipe(self) -> BaseRecipe:
        """The recipe of the stage, with the chosen values of how files are written.

        Raises:
            InputError: the recipe or a chosen value is refused.
        """
        recipe = recipes.validate(self.description.recipe, f"model file {self.path}")
        source = f"model file {self.path}"
        return recipes.rewriting(recipe, self.writing, source) if self.writing else recipe

    def system(self) -> System:
        """The system with the file's weights, on the CPU; networks for training alone have none.

        Raises:
            InputError: the recipe cannot be built, or the tensors are not those of its codec.
        """
        return self._system

    def codec(self) -> Codec:
        """The codec.

        Raises:
            InputError: as `system`, or there is no codec, or it has other fingerprints.
        """
        return self._codec

    @cached_property
    def _system(self) -> System:
        recipe, parents = self.recipe(), self._parent_recipes()
        with self._refusing():
            planned = plan_system(recipe, parents)
        wanted = planned.coding_networks().state_dict()
        _require_equal(self.path, self.tensors, wanted)
        others = _values(planned.networks.state_dict()) + _values(planned.frozen.state_dict())
        if others > _MOST_VALUES + _MOST_TIMES * _values(wanted):
            raise InputError(
                f"the recipe in model file {self.path} cannot be built: its networks for training"
                f" have {others} values"
            )
        # Those of the codec are replaced, and nobody reads the others.
        with self._refusing(), torch.random.fork_rng(devices=[]):
            system = build_system(recipe, parents)
        system.coding_networks().load_state_dict(dict(self.tensors))
        return system

    @cached_property
    def _codec(self) -> Codec:
        system = self.system()
        try:
            codec = system.codec()
        except InputError as error:
            raise InputError(f"model file {self.path} has no codec that works: {error}") from None
        if codec is None:
            raise InputError(
                f"model file {self.path} is of {self.description.method}, which has no codec"
            )
        stated = self.description.fingerprints
        if (stated.writer, stated.reader) != (
            codec.writer_fingerprint.hex(),
            codec.reader_fingerprint.hex(),
        ):
            raise InputError(
                f"model file {self.path} has other fingerprints than it states, so it is not the"
                " codec that was exported"
            )
        return codec

    def _parent_recipes(self) -> dict[str, BaseRecipe]:
        raw, roles = self.description.parents, self.recipe().parent_runs()
        if set(raw) != set(roles):
            raise InputError(
                f"model file {self.path} has the recipes of the parents {sorted(raw)}, but its"
                f" recipe names {sorted(roles)}"
            )
        return {
            role: recipes.validate(one, f"parent {role} in model file {self.path}")
            for role, one in raw.items()
        }

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """What goes wrong while a recipe is built becomes an `InputError` that names the file."""
        seen = 0

        def count(module: nn.Module, name: str, child: nn.Module | None) -> None:
            nonlocal seen
            seen += 1
            if seen > _MOST_LAYERS:
                raise ValueError(f"it has more than {_MOST_LAYERS} layers")

        hook = register_module_module_registration_hook(count)
        try:
            yield
        except (RuntimeError, ValueError, TypeError, OverflowError, MemoryError) as error:
            said = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise InputError(
                f"the recipe in model file {self.path} cannot be built: {said}"
            ) from None
        finally:
            hook.remove()


def load(path: str | Path, writing: Mapping[str, Any] | None = None) -> Model:
    """A trained codec from a model file, which `gencomp export` writes.

    Args:
        path: the file.
        writing: other values of how files are written, by dotted key, such as
            `{"codec.effort": "best"}`.

    Raises:
        InputError: the file cannot be read, is no model file or is damaged, or its recipe or a
            value of how files are written is refused.
    """
    description, tensors = model_file.read(Path(path))
    model = Model(Path(path), description, tensors, dict(writing or {}))
    model.recipe()
    return model


def _require_equal(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Require the tensors that a codec has, no others, of its shapes and types."""
    if more := sorted(found.keys() - wanted.keys()):
        raise InputError(f"model file {path} holds {more[0]!r}, which its recipe has no place for")
    for name, tensor in wanted.items():
        if name not in found:
            raise InputError(f"model file {path} lacks {name!r}, which its recipe asks for")
        own = found[name]
        if (own.shape, own.dtype) != (tensor.shape, tensor.dtype):
            raise InputError(
                f"model file {path} holds {name!r} as {_kind(own)}, but its recipe asks for"
                f" {_kind(tensor)}"
            )


def _values(state: Mapping[str, Tensor]) -> int:
    return sum(one.numel() for one in state.values())


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _pixels(image: np.ndarray | Image.Image | str | Path) -> tuple[np.ndarray, int]:
    """The pixels of an image as codecs take them, and the index of its picture."""
    if isinstance(image, str | Path):
        try:
            data = Path(image).read_bytes()
        except OSError as error:
            raise InputError(f"{image} cannot be read: {error.strerror}") from None
        return _of_file(data, str(image)), first_index([data])
    pixels_HWC = _of_pillow(image, "the image") if isinstance(image, Image.Image) else image
    if not isinstance(pixels_HWC, np.ndarray):
        raise InputError(f"an image is an array, a PIL image or a path, not {type(image).__name__}")
    said = " ".join(map(str, pixels_HWC.shape)).encode()
    return pixels_HWC, first_index([said, pixels_HWC.tobytes()])


def _of_file(data: bytes, name: str) -> np.ndarray:
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(BytesIO(data)) as image:
            return _of_pillow(image, name)
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{name} is not a readable image: {error}") from None


def _of_pillow(image: Image.Image, name: str) -> np.ndarray:
    """The pixels of an image in RGB or in grey, of 8 bits, opaque and upright; others are refused.

    `gencomp compress` converts others by its rules; here, whoever has the image chooses.
    """
    said = ""
    if image.mode not in ("RGB", "L") or image.has_transparency_data:
        kind = "transparent" if image.has_transparency_data else f"of the mode {image.mode}"
        said = f'is {kind}: convert it first, for example by image.convert("RGB")'
    elif getattr(image, "n_frames", 1) > 1:
        said = "holds several pages or frames: choose one"
    elif image.getexif().get(_ORIENTATION, 1) != 1:
        said = "has an orientation tag: turn it first, by PIL.ImageOps.exif_transpose"
    if said:
        raise InputError(f"{name} {said}")
    return np.asarray(image.convert("RGB"))
