"""The peak signal-to-noise ratio, without torch."""

from __future__ import annotations

import math

import numpy as np

PEAK_TO_PEAK = 2.0  # the difference of white and black on [−1, 1], the scale of every `mse`


def psnr(mse: float) -> float:
    """The ratio 10·log10(4/MSE) in dB, for an MSE on [−1, 1]; infinite for an MSE of 0."""
    return math.inf if mse <= 0 else 10 * math.log10(PEAK_TO_PEAK**2 / mse)


def psnr_ends(ends: tuple[float, float] | None) -> tuple[float, float] | None:
    """The interval of the ratio from that of the MSE; None where that is None.

    Decibels fall with the error, so the ends change places.
    """
    return ends and (psnr(ends[1]), psnr(ends[0]))


def psnr_of_each(mse_N: np.ndarray) -> np.ndarray:
    """The ratio of each image in dB, [N]; infinite for an image without error."""
    with np.errstate(divide="ignore"):
        return 10 * np.log10(PEAK_TO_PEAK**2 / mse_N)
