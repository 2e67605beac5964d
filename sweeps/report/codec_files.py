"""What the files of a trial's codec cost: those of images at hand, and those of held-out images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from cluster import data
from cluster.checkpoints.store import LAST
from cluster.evaluations.files import plan, results, work
from cluster.evaluations.files.settings import FileOptions
from cluster.evaluations.processes import make_parts
from cluster.files import locked
from cluster.results import file_rates
from cluster.results.file_rates import FileRates
from cluster.runs import Run
from gencomp.report import Files
from gencomp.system import Codec, Picture

# The measurement that is made here where `gencomp files` has made none.
_NAME, _PICTURES = "report", 128
_BUSY = "{directory} is being worked on by {holder}"


class Decoded(NamedTuple):
    """Images that went through files.

    Attributes:
        images: the decoded images.
        bits: the bits of code of each image, alone in a file.
        bytes: the size of each such file.
        file_bpp: all bits of one joint container of the images, over all pixels.
    """

    images: list[np.ndarray]
    bits: list[int]
    bytes: list[int]
    file_bpp: float

    @property
    def note(self) -> str:
        """The rates in words."""
        code_bpp = sum(self.bits) / _pixels(self.images)
        return (
            f"{code_bpp:.3g} bpp of code, {self.file_bpp:.3g} bpp as one joint file; files alone"
            f" have {np.mean(self.bytes):.0f} bytes"
        )


def through_files(codec: Codec, pictures: Sequence[Picture]) -> Decoded:
    """Write and read a file of each picture, and write a joint one."""
    streams = [codec.compress(picture) for picture in pictures]
    return Decoded(
        [codec.decompress(stream) for stream in streams],
        [codec.code_bits(stream) for stream in streams],
        [len(stream) for stream in streams],
        8 * len(codec.compress_jointly(pictures)) / _pixels([one.image_HWC for one in pictures]),
    )


def held_out(run: Run, say: Callable[[str], None]) -> Files | None:
    """The files of held-out images by `gencomp files`, or else of a few that are measured here.

    They are None for a run that is not finished.

    Raises:
        InputError: the measurement is of other weights or other data.
    """
    if run.result() is None:
        return None
    recipe = run.recipe()
    usual = file_rates.of_run(run.path, "files") if run.checkpoint == LAST else None
    found = usual or _measured(run, say)
    found.require(
        run.final_checkpoint().networks_hash(),
        data.open_evaluation_set(run).index_hash,
        recipe.evaluation.split,
        data.evaluation_protocol(recipe),
    )
    mse, alone = found.metrics["mse"], found.metrics["bytes_alone"]["value"]
    interval = mse["interval"] and tuple(mse["interval"])
    return Files(mse["images"], found.code_bpp, found.file_bpp, alone, mse["value"], interval)


def _measured(run: Run, say: Callable[[str], None]) -> FileRates:
    """The rates of a few held-out images; an interrupted measurement goes on where it was."""
    held_out = data.open_evaluation_set(run).split(run.recipe().evaluation.split)
    images = min(_PICTURES, len(held_out))
    wanted = plan.make(run, FileOptions(split=held_out.name, images=images), threads=1)
    name = _NAME if run.checkpoint == LAST else f"{_NAME}-{run.checkpoint}"
    evaluation = plan.Evaluation.find(run, name, wanted).enter()
    with locked(evaluation.path, _BUSY):
        if missing := evaluation.missing():
            say(f"measuring files of {images} held-out images (`gencomp files` measures all)")
            make_parts(partial(work.open_maker, evaluation.path), missing, processes=1)
        results.collect(evaluation, require_all=True)
    found = file_rates.read(evaluation.result)
    assert found is not None
    return found


def _pixels(images: Sequence[np.ndarray]) -> int:
    return sum(image.shape[0] * image.shape[1] for image in images)
