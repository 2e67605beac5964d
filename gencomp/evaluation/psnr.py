"""The peak signal-to-noise ratio, without torch."""

from __future__ import annotations

import math


def psnr(mse: float, peak_to_peak: float = 2.0) -> float:
    """The ratio 10·log10(peak²/MSE) in dB, which is infinite for an MSE of 0.

    Args:
        mse: the mean squared error.
        peak_to_peak: the largest difference of two values on the scale of the error, which is 2 on
            [−1, 1].
    """
    return math.inf if mse <= 0 else 10 * math.log10(peak_to_peak**2 / mse)
