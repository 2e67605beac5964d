"""Errors of reconstructions as sums that can be merged, and their summary."""

from __future__ import annotations

from torch import Tensor

from gencomp.evaluation.psnr import psnr
from gencomp.sums import Sums


def squared_errors(x: Tensor, x_hat: Tensor) -> Sums:
    """The sums of each image's MSE under the name `mse`, float64.

    Args:
        x, x_hat: the images and their reconstructions, [B, ...], on the scale of the networks.
    """
    sums = Sums()
    sums.add("mse", (x_hat.double() - x.double()).square().flatten(1).mean(1))
    return sums


def errors_summary(sums: Sums, peak_to_peak: float) -> dict[str, float]:
    """The MSE with its standard error over images, and the PSNR of the mean MSE.

    Args:
        sums: sums that include `mse`.
        peak_to_peak: the largest difference of two values on the scale of the errors.
    """
    mse = sums.mean("mse")
    return {
        "mse": mse,
        "mse_standard_error": sums.standard_error("mse"),
        "psnr": psnr(mse, peak_to_peak),
    }
