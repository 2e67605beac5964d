"""Distortion and diversity of 8-bit images, on the scale [−1, 1], from exact integer sums.

An 8-bit value v stands for v/127.5 − 1, so squares carry the factor 1/127.5².
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

SCALE = 127.5


def squared_error(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """Mean over channels and pixels of (a − b)², float64 [B].

    Args:
        a_BCHW, b_BCHW: uint8.
    """
    difference = a_BCHW.to(torch.int32) - b_BCHW.to(torch.int32)
    return _mean_of_image(difference.square()) / SCALE**2


class Repeats:
    """Several draws for the same images: their variance for each image, and their sum.

    Attributes:
        count: draws so far.
        total_BCHW: their sum, int64.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total_BCHW = torch.tensor(0)
        self._squares_BCHW = torch.tensor(0)

    def add(self, images_BCHW: Tensor) -> None:
        """One more draw, uint8."""
        values = images_BCHW.long()
        self.count += 1
        self.total_BCHW = self.total_BCHW.to(values.device) + values
        self._squares_BCHW = self._squares_BCHW.to(values.device) + values.square()

    def variance_B(self) -> Tensor:
        """Mean over channels and pixels of E[x̂²] − E[x̂]², the biased (1/n) estimate; float64.

        Its expectation is (1 − 1/n) times the variance. Exactly 0 for equal draws.
        """
        spread = self.count * self._squares_BCHW - self.total_BCHW.square()
        return _mean_of_image(spread) / (self.count * SCALE) ** 2


@dataclass
class PixelSums:
    """Mergeable sums over images, value by value.

    Attributes:
        count: images.
        total_CHW: int64.
        squares_CHW: int64.
    """

    count: int
    total_CHW: Tensor
    squares_CHW: Tensor

    @classmethod
    def of(cls, images_BCHW: Tensor) -> PixelSums:
        """
        Args:
            images_BCHW: uint8.
        """
        values = images_BCHW.long()
        return cls(len(values), values.sum(0), values.square().sum(0))

    def merge(self, other: PixelSums) -> None:
        self.count += other.count
        self.total_CHW = self.total_CHW + other.total_CHW
        self.squares_CHW = self.squares_CHW + other.squares_CHW

    def mean_CHW(self) -> Tensor:
        """On 0..255, float64."""
        return self.total_CHW.double() / self.count

    def variance(self) -> float:
        """Mean over values of the variance over images (1/n), on [−1, 1]."""
        second = self.squares_CHW.double() / self.count
        return float((second - self.mean_CHW().square()).mean() / SCALE**2)


class ZeroRate(NamedTuple):
    """Both sides of E MSE(0) = Var(X) + PV(0) + |E X − E G(Z)|², per value, on [−1, 1].

    It holds for reconstructions that do not depend on the image, up to the sampling error of the
    two means and of what images and draws have in common by chance.
    """

    mse: float
    variance_of_images: float
    variance_of_draws: float
    distance_of_means: float

    @property
    def right_side(self) -> float:
        return self.variance_of_images + self.variance_of_draws + self.distance_of_means


def zero_rate(
    mse: float, images: PixelSums, mean_of_draws_CHW: Tensor, pv: float, draws: int
) -> ZeroRate:
    """
    Args:
        mse: mean over images and draws.
        images: of the originals.
        mean_of_draws_CHW: mean of all draws for all images, on 0..255.
        pv: mean biased variance over the draws of an image; it is freed from its bias here.
        draws: their number for each image, at least two.
    """
    distance = (images.mean_CHW() - mean_of_draws_CHW).square().mean() / SCALE**2
    return ZeroRate(mse, images.variance(), pv * draws / (draws - 1), float(distance))


def _mean_of_image(values_BCHW: Tensor) -> Tensor:
    total_B = values_BCHW.flatten(1).sum(1, dtype=torch.int64)
    return total_B.double() / values_BCHW[0].numel()
