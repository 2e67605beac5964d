"""Means, standard errors, and the difference between a codec and the curve of its generator.

MSE is per value on the scale [−1, 1], so PSNR = 10·log10(4/MSE).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gencomp.report.content import Curve


class Means(NamedTuple):
    """The curve averaged over its images at equal β, [T], with rates in nats per image.

    `mse_error_T` is the standard error of the curve along the distortion at fixed rate: the curve
    is the envelope of the lines R + β·D = -log Z_β, so an error e of -log Z shifts it by e/β.
    """

    rate_T: np.ndarray
    mse_T: np.ndarray
    mse_error_T: np.ndarray


class Held(NamedTuple):
    """A codec compared with the curve.

    Attributes:
        mse_at_rate: the curve's MSE at the codec's rate.
        beyond: whether the codec's rate is above the curve's last rate; the curve's last MSE is
            then used as a bound.
        excess, excess_error: the codec's MSE minus `mse_at_rate`, and the standard error of the
            paired difference.
        rate_at_mse: the curve's rate at the codec's MSE in nats per image; None outside the curve.
    """

    mse_at_rate: float
    beyond: bool
    excess: float
    excess_error: float
    rate_at_mse: float | None


def means(curve: Curve) -> Means:
    """The mean curve with its standard error over images."""
    error_T = standard_error(curve.log_z_IT) / curve.beta_T / curve.values
    return Means(curve.rate_IT.mean(0), curve.distortion_IT.mean(0) / curve.values, error_T)


def held_against(curve: Curve, nats_I: np.ndarray, mse_I: np.ndarray) -> Held | None:
    """Compare a codec with the curve on the same images, by the rate and the MSE of each.

    The result is None where the codec's rate is below the curve's first. Neighbouring points of the
    curve are joined by their chord, which time sharing can reach. Beyond its last point the curve
    cannot rise.
    """
    nats = float(nats_I.mean())
    rate_T, mse_T, _ = means(curve)
    order = np.argsort(rate_T, kind="stable")
    rates, mses = rate_T[order], mse_T[order]
    if nats < rates[0]:
        return None
    beyond = bool(nats > rates[-1])
    mse_at_rate = float(np.interp(nats, rates, mses))
    near = int(np.abs(rate_T - nats).argmin())
    if beyond:
        above_I = mse_I - curve.distortion_IT[:, near] / curve.values
    else:
        # Each image's height above the tangent at the nearest point; its own difficulty cancels.
        above_I = mse_I + (nats_I + curve.log_z_IT[:, near]) / curve.beta_T[near] / curve.values
    mse = float(mse_I.mean())
    inside = mses[-1] <= mse <= mses[0]
    rate_at_mse = float(np.interp(-mse, -mses, rates)) if inside else None
    return Held(mse_at_rate, beyond, mse - mse_at_rate, float(standard_error(above_I)), rate_at_mse)


def standard_error(values: np.ndarray) -> np.ndarray:
    """The standard error of the mean over the first axis; nan for a single value."""
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    return np.asarray(values.std(0, ddof=1) / math.sqrt(len(values)))
