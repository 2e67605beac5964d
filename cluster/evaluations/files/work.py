"""How the part of a block is made: each picture becomes a file, and the file an image again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import shards
from cluster import data
from cluster.evaluations.files import parts
from cluster.evaluations.files.plan import LOSSLESS, Evaluation, open_codec, several
from cluster.evaluations.work import MakePart
from gencomp.coding import classical, container
from gencomp.errors import InputError
from gencomp.evaluation import pixels, ssim
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Codec, Ideal, Picture
from shards.reading.reader import Split

_READ_BACK = 8  # pictures of a joint container that are decoded again


@dataclass(frozen=True)
class Context:
    """What all the blocks of a process share."""

    evaluation: Evaluation
    recipe: BaseRecipe
    codec: Codec
    ideal: Callable[[Picture], Ideal] | None
    split: Split

    def picture(self, item: int) -> Picture:
        """The measured picture at a place."""
        return data.held_out_picture(self.recipe, self.split, self.evaluation.plan.rows[item])


class Pictures(Sequence[Picture]):
    """Some of the measured pictures, each read when it is asked for."""

    def __init__(self, context: Context, items: range) -> None:
        self._context, self._items = context, items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return Pictures(self._context, self._items[place])
        return self._context.picture(self._items[place])


def open_context(evaluation: Evaluation) -> Context:
    """The run's codec and its pictures.

    Raises:
        InputError: the codec is no longer that of the plan.
        ShardError: the shard set is missing.
    """
    plan, run = evaluation.plan, evaluation.run
    torch.set_num_threads(plan.settings.threads)
    codec, ideal = open_codec(run)
    found = codec.writer_fingerprint.hex(), codec.reader_fingerprint.hex()
    if found != (plan.writer, plan.reader):
        raise InputError(f"run {run.path} has another codec than the plan of {evaluation.path}")
    split = shards.open_set(plan.shards).split(plan.settings.split)
    if split.index_hash != plan.data:
        raise InputError(
            f"shard set {plan.shards} is another one than in the plan of {evaluation.path}"
        )
    return Context(evaluation, run.recipe(), codec, ideal, split)


def open_maker(directory: Path, number: int = 0) -> MakePart:
    """The function that makes the parts of an evaluation in this process.

    Args:
        directory: the directory of the evaluation.
        number: the number of the process, which changes nothing.

    Raises:
        InputError: the codec is no longer that of the plan.
        ShardError: the shard set is missing.
    """
    return partial(make_part, open_context(Evaluation.open(directory)))


def make_part(
    context: Context, number: int, advanced: Callable[[int], None] = lambda items: None
) -> None:
    """Write and read the files of a block, and write its part.

    Args:
        context: the objects that the blocks of the process share.
        number: the number of the block.
        advanced: a function that is called after each picture with the number of pictures done; an
            error that it raises stops the work, and the block must be made again.

    Raises:
        InputError: a picture does not fit the codec.
        ShardError: a picture cannot be read.
        RuntimeError: a file does not decode to what the encoder promised.
    """
    kind, items = context.evaluation.plan.blocks[number]
    measured: list[dict[str, float]] = []
    if kind == "joint":
        measured.append(measure_jointly(context.codec, Pictures(context, items)))
        for name, files in _engineered(context, items).items():
            measured[-1][name] = 8 * len(classical.archive(files))
        advanced(len(items))
    else:
        for item in items:
            picture = context.picture(item)
            measured.append(measure(context.codec, picture))
            if context.ideal is not None:
                measured[-1] |= _ideal(context.ideal(picture), picture)
            advanced(len(measured))
        for name, files in _engineered(context, items).items():
            for values, file in zip(measured, files, strict=True):
                values[name] = 8 * len(file)
    tensors = {
        name: torch.tensor([one[name] for one in measured], dtype=torch.float64)
        for name in measured[0]
    }
    parts.write_part(context.evaluation, number, tensors)


def measure(codec: Codec, picture: Picture) -> dict[str, float]:
    """The values of one picture, under the names of `parts.VALUES` and of its file's parts.

    Raises:
        InputError: the picture does not fit the codec.
        RuntimeError: the file does not decode to what the encoder promised.
    """
    height, width = picture.image_HWC.shape[:2]
    began = time.perf_counter()
    stream = codec.compress(picture)
    written = time.perf_counter()
    decoded_HWC = codec.decompress(stream)
    read = time.perf_counter()
    if not np.array_equal(decoded_HWC, codec.reconstruct(picture)):
        raise RuntimeError(
            f"the file of picture {picture.index} does not decode to its reconstruction: this is a"
            f" fault of the codec {codec.codec_id}"
        )
    nominal = codec.nominal_bits(height, width)
    of_parts = container.part_bits(container.unpack(stream), codec.parts)
    mse, ms_ssim = _errors(picture.image_HWC, decoded_HWC)
    return {
        "pixels": height * width,
        "code_bits": codec.code_bits(stream),
        "file_bits": 8 * len(stream),
        "nominal_bits": math.nan if nominal is None else nominal,
        "mse": mse,
        "ms_ssim": ms_ssim,
        "encode_seconds": written - began,
        "decode_seconds": read - written,
        **{f"{part}_bits": of_parts[part] for part in several(codec.parts)},
    }


def measure_jointly(codec: Codec, pictures: Sequence[Picture]) -> dict[str, float]:
    """The values of one joint container, under the names of `parts.JOINT_VALUES`.

    Raises:
        InputError: a picture does not fit the codec.
        RuntimeError: a member does not decode to what the encoder promised.
    """
    stream = codec.compress_jointly(pictures)
    last = len(pictures) - 1
    for place in np.linspace(0, last, min(last + 1, _READ_BACK)).round().astype(int).tolist():
        found = codec.decompress(stream, place=place)
        if not np.array_equal(found, codec.reconstruct(pictures[place])):
            raise RuntimeError(
                f"picture {pictures[place].index} of a joint container does not decode to its"
                f" reconstruction: this is a fault of the codec {codec.codec_id}"
            )
    return {
        "pictures": len(pictures),
        "pixels": sum(one.image_HWC.shape[0] * one.image_HWC.shape[1] for one in pictures),
        "code_bits": codec.code_bits(stream),
        "file_bits": 8 * len(stream),
    }


def _engineered(context: Context, items: range) -> dict[str, list[bytes]]:
    """The files of some pictures by each engineered lossless codec, such as png_bits."""
    codecs = {
        f"{name}_bits": classical.lossless(LOSSLESS[name])
        for name in context.evaluation.plan.settings.lossless
    }
    files: dict[str, list[bytes]] = {name: [] for name in codecs}
    for item in items if codecs else ():
        image_HWC = context.picture(item).image_HWC
        for name, codec in codecs.items():
            files[name].append(codec.encode(image_HWC, codec.ladder[0]))
    return files


def _ideal(found: Ideal, picture: Picture) -> dict[str, float]:
    """The values of a picture under the names of `parts.IDEAL_VALUES`."""
    errors = _errors(picture.image_HWC, found.image_HWC)
    return dict(zip(parts.IDEAL_VALUES, (found.bits, *errors), strict=True))


def _errors(original_HWC: np.ndarray, shown_HWC: np.ndarray) -> tuple[float, float]:
    """The MSE and the MS-SSIM of an image, of which a small one has no MS-SSIM."""
    both = [_as_batch(image_HWC) for image_HWC in (original_HWC, shown_HWC)]
    small = min(original_HWC.shape[:2]) < ssim.TAPS
    return pixels.squared_error(*both).item(), math.nan if small else ssim.ms_ssim(*both).item()


def _as_batch(image_HWC: np.ndarray) -> Tensor:
    """An image as a batch of one, uint8 [1, C, H, W]."""
    return torch.from_numpy(image_HWC.copy()).permute(2, 0, 1)[None]
