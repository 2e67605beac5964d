"""Engineered codecs as reference lines, measured on the same images as the other results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cluster.results.pictures import as_tiles
from gencomp.coding import classical
from gencomp.errors import InputError
from gencomp.evaluation import intervals
from gencomp.evaluation.pixels import squared_error
from gencomp.evaluation.psnr import psnr, psnr_ends, psnr_of_each
from gencomp.evaluation.ssim import ms_ssim
from gencomp.figures.curves import Point

METRICS = ("mse", "psnr", "mean_psnr", "ms_ssim")
_BEYOND = 16  # rates above this multiple of the other results' highest rate are not drawn
_BATCH = 64


@dataclass(frozen=True)
class Rung:
    """A codec at one setting, measured on all images.

    Attributes:
        codec: the codec's name.
        bpp: the rate of one archive of all files, headers included, over all pixels.
        file_bpp: the rate of the files, each counted alone.
        values: the mse and ms_ssim of each image, as far as they were asked for.
    """

    codec: str
    bpp: float
    file_bpp: float
    values: dict[str, np.ndarray]

    def point(self, metric: str, beside: Point) -> Point:
        """The rung as a point on the axis of another point that was measured on the same images."""
        values_N = self.values["ms_ssim" if metric == "ms_ssim" else "mse"]
        if metric == "mean_psnr":
            values_N = psnr_of_each(values_N)
        value = float(values_N.mean())
        ends = intervals.at_least(0.0, intervals.of_mean(values_N))
        if metric == "psnr":
            value, ends = psnr(value), psnr_ends(ends)
        name = f"{self.codec}, one archive of files"
        return Point(name, self.bpp, value, ends, name, beside.protocol, "classical")


def parse(text: str) -> list[classical.ClassicalCodec]:
    """The codecs that a text such as `jpeg,jpeg2000` names; spaces and capitals do not matter.

    Raises:
        InputError: there is no such codec, or it is not installed.
    """
    plain = {name.lower().replace(" ", ""): name for name in classical.NAMES}
    found = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        name = plain.get(word.lower().replace(" ", ""))
        if name is None:
            raise InputError(f"--classical {word!r} is not one of {', '.join(plain)}")
        found.append(classical.codec(name))
    return found


def measure(
    codecs: Sequence[classical.ClassicalCodec],
    images_BCHW: Tensor,
    highest_bpp: float,
    metrics: Sequence[str],
) -> list[Rung]:
    """Every codec along its ladder, as far as the rates of the other results and a little beyond.

    Args:
        codecs: the codecs.
        images_BCHW: the images, uint8.
        highest_bpp: the highest rate of the other results.
        metrics: the metrics that the rungs will be asked for.
    """
    rungs = []
    for codec in codecs:
        for quality in codec.ladder:
            rungs.append(_rung(codec, quality, images_BCHW, "ms_ssim" in metrics))
            if rungs[-1].bpp > _BEYOND * highest_bpp:
                break
    return rungs


def _rung(
    codec: classical.ClassicalCodec, quality: float, images_BCHW: Tensor, with_ssim: bool
) -> Rung:
    files: list[bytes] = []
    others: list[bytes] = []
    values: dict[str, list[Tensor]] = {"mse": [], "ms_ssim": []}
    for batch_BCHW in images_BCHW.split(_BATCH):
        images = as_tiles(batch_BCHW)
        coded = [codec.encode(image_HWC, quality) for image_HWC in images]
        if codec.in_archive is not None:
            others += [codec.in_archive(image_HWC, quality) for image_HWC in images]
        shown = np.stack([codec.decode(file) for file in coded])
        made_BCHW = torch.from_numpy(shown).permute(0, 3, 1, 2)
        files += coded
        values["mse"].append(squared_error(batch_BCHW, made_BCHW))
        if with_ssim:
            values["ms_ssim"].append(ms_ssim(batch_BCHW, made_BCHW))
    count, _, height, width = images_BCHW.shape
    joined = {name: torch.cat(parts).numpy() for name, parts in values.items() if parts}
    pixels = count * height * width
    archives = [len(classical.archive(those)) for those in (files, others) if those]
    single = sum(map(len, files))
    return Rung(codec.name, 8 * min(archives) / pixels, 8 * single / pixels, joined)
