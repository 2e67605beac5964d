"""The distortion and diversity of 8-bit images on the scale [−1, 1], from exact integer sums.

An 8-bit value v stands for v/127.5 − 1, so squares carry the factor 1/127.5².
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

SCALE = 127.5


def squared_error(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """The mean of (a − b)² over channels and pixels, float64 [B].

    Args:
        a_BCHW, b_BCHW: uint8 images.
    """
    difference = a_BCHW.to(torch.int32) - b_BCHW.to(torch.int32)
    return _mean_of_image(difference.square()) / SCALE**2


class Repeats:
    """The sum and the variance for each image of several draws for the same images.

    Attributes:
        count: the number of draws so far.
        total_BCHW: the sum of the draws, int64.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total_BCHW = torch.tensor(0)
        self._squares_BCHW = torch.tensor(0)

    def add(self, images_BCHW: Tensor) -> None:
        """Add one draw, uint8."""
        values = images_BCHW.long()
        self.count += 1
        self.total_BCHW = self.total_BCHW.to(values.device) + values
        self._squares_BCHW = self._squares_BCHW.to(values.device) + values.square()

    def variance_B(self) -> Tensor:
        """The mean of E[x̂²] − E[x̂]² over channels and pixels, float64 [B].

        This is the biased (1/n) estimate: its expectation is (1 − 1/n) times the variance. It is
        exactly 0 for equal draws.
        """
        spread = self.count * self._squares_BCHW - self.total_BCHW.square()
        return _mean_of_image(spread) / (self.count * SCALE) ** 2


@dataclass
class PixelSums:
    """Sums over images for each value of an image, which can be merged.

    Attributes:
        count: the number of images.
        total_CHW: the sums of the values, int64.
        squares_CHW: the sums of the squared values, int64.
    """

    count: int
    total_CHW: Tensor
    squares_CHW: Tensor

    @classmethod
    def of(cls, images_BCHW: Tensor) -> PixelSums:
        """The sums over a batch.

        Args:
            images_BCHW: uint8 images.
        """
        values = images_BCHW.long()
        return cls(len(values), values.sum(0), values.square().sum(0))

    def merge(self, other: PixelSums) -> None:
        self.count += other.count
        self.total_CHW = self.total_CHW + other.total_CHW
        self.squares_CHW = self.squares_CHW + other.squares_CHW

    def mean_CHW(self) -> Tensor:
        """The mean image on 0..255, float64."""
        return self.total_CHW.double() / self.count

    def variance(self) -> float:
        """The biased (1/n) variance over images on [−1, 1], averaged over the values."""
        second = self.squares_CHW.double() / self.count
        return float((second - self.mean_CHW().square()).mean() / SCALE**2)


class ZeroRate(NamedTuple):
    """Both sides of E MSE(0) = Var(X) + PV(0) + |E X − E G(Z)|², per value, on [−1, 1].

    The equation holds for reconstructions that do not depend on the image, up to the sampling error
    of the two means and of the correlation that images and draws have by chance.
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
    """The two sides of the equation at rate 0.

    Args:
        mse: the mean over images and draws.
        images: the sums over the original images.
        mean_of_draws_CHW: the mean of all draws for all images, on 0..255.
        pv: the mean biased variance over the draws of an image; the bias is corrected here.
        draws: the number of draws for each image, at least two.
    """
    distance = (images.mean_CHW() - mean_of_draws_CHW).square().mean() / SCALE**2
    return ZeroRate(mse, images.variance(), pv * draws / (draws - 1), float(distance))


def _mean_of_image(values_BCHW: Tensor) -> Tensor:
    total_B = values_BCHW.flatten(1).sum(1, dtype=torch.int64)
    return total_B.double() / values_BCHW[0].numel()
