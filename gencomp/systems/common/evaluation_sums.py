"""Errors of reconstructions as sums that can be merged, and their summary."""

from __future__ import annotations

from torch import Tensor

from gencomp.evaluation.psnr import PEAK_TO_PEAK, psnr
from gencomp.sums import Sums


def squared_errors(x: Tensor, x_hat: Tensor, peak_to_peak: float = PEAK_TO_PEAK) -> Sums:
    """The sums of each image's MSE under the name `mse`, of pixels on [−1, 1], float64.

    Args:
        x, x_hat: the images and their reconstructions, [B, ...], on the scale of the networks.
        peak_to_peak: the difference of white and black on the scale of the networks.
    """
    mse_B = (x_hat.double() - x.double()).square().flatten(1).mean(1)
    sums = Sums()
    sums.add("mse", mse_B * (PEAK_TO_PEAK / peak_to_peak) ** 2)
    return sums


def errors_summary(sums: Sums) -> dict[str, float]:
    """The MSE with its standard error over images, and the PSNR of the mean MSE.

    Args:
        sums: sums that include the `mse` of `squared_errors`.
    """
    mse = sums.mean("mse")
    return {
        "mse": mse,
        "mse_standard_error": sums.standard_error("mse"),
        "psnr": psnr(mse),
    }
