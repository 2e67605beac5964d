"""The peak signal-to-noise ratio. Nothing here imports torch."""

from __future__ import annotations

import math


def psnr(mse: float, peak_to_peak: float = 2.0) -> float:
    """10·log10(peak²/MSE) dB; infinite without an error.

    Args:
        mse: the mean squared error.
        peak_to_peak: the largest difference of two values on the scale of the error: 2 on [−1, 1].
    """
    return math.inf if mse <= 0 else 10 * math.log10(peak_to_peak**2 / mse)
