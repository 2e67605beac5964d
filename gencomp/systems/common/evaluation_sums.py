"""Errors of reconstructions as sums that can be merged, and what they come to."""

from __future__ import annotations

from torch import Tensor

from gencomp.evaluation.psnr import psnr
from gencomp.sums import Sums


def squared_errors(x: Tensor, x_hat: Tensor) -> Sums:
    """The MSE of each image, in float64, under `mse`.

    Args:
        x, x_hat: images and reconstructions, [B, ...] on the scale of the networks.
    """
    sums = Sums()
    sums.add("mse", (x_hat.double() - x.double()).square().flatten(1).mean(1))
    return sums


def errors_summary(sums: Sums, peak_to_peak: float) -> dict[str, float]:
    """MSE with its standard error over images, and PSNR of the mean MSE.

    Args:
        sums: with `mse`.
        peak_to_peak: the largest difference of two values on the scale of the errors.
    """
    mse = sums.mean("mse")
    return {
        "mse": mse,
        "mse_standard_error": sums.standard_error("mse"),
        "psnr": psnr(mse, peak_to_peak),
    }
