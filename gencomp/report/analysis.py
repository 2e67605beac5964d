"""Means, standard errors, and what lies between a codec and the curve of its generator.

MSE is per value on the scale [−1, 1], so PSNR = 10·log10(4/MSE).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gencomp.report.content import Curve


class Means(NamedTuple):
    """The curve averaged over its images at equal β, [T]; rates in nats per image.

    `mse_error_T` is the standard error of the curve along the distortion at fixed rate: the curve
    is the envelope of the lines R + β·D = -log Z_β, so an error e of -log Z shifts it by e/β.
    """

    rate_T: np.ndarray
    mse_T: np.ndarray
    mse_error_T: np.ndarray


class Held(NamedTuple):
    """A codec held against the curve.

    Attributes:
        mse_at_rate: what the curve has at the codec's rate.
        beyond: the codec's rate is above the curve's last, whose MSE then stands as a bound.
        excess, excess_error: the codec's MSE above that, with the standard error of the paired
            difference.
        rate_at_mse: nats per image that the curve has at the codec's MSE; None outside its range.
    """

    mse_at_rate: float
    beyond: bool
    excess: float
    excess_error: float
    rate_at_mse: float | None


def means(curve: Curve) -> Means:
    """Mean curve with its standard error over images."""
    error_T = standard_error(curve.log_z_IT) / curve.beta_T / curve.values
    return Means(curve.rate_IT.mean(0), curve.distortion_IT.mean(0) / curve.values, error_T)


def held_against(curve: Curve, nats: float, mse_I: np.ndarray) -> Held | None:
    """A codec of a fixed rate against the curve, on the same images; None below its first rate.

    Between neighbouring points of the curve lies their chord: time sharing reaches it. Beyond the
    last point the curve cannot rise.
    """
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
        # Each image's height above the tangent at the nearest point; common hardness cancels.
        above_I = mse_I + (nats + curve.log_z_IT[:, near]) / curve.beta_T[near] / curve.values
    mse = float(mse_I.mean())
    inside = mses[-1] <= mse <= mses[0]
    rate_at_mse = float(np.interp(-mse, -mses, rates)) if inside else None
    return Held(mse_at_rate, beyond, mse - mse_at_rate, float(standard_error(above_I)), rate_at_mse)


def standard_error(values: np.ndarray) -> np.ndarray:
    """Of the mean over the first axis; nan for a single value."""
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    return np.asarray(values.std(0, ddof=1) / math.sqrt(len(values)))
