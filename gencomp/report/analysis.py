"""Means, standard errors, and the difference between a codec and the curve of its generator.

MSE is per value on the scale [−1, 1], so PSNR = 10·log10(4/MSE).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gencomp.evaluation.psnr import psnr
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
    """A codec compared with the curve; all errors are standard errors over the images.

    Attributes:
        mse_at_rate, mse_at_rate_error: the curve's MSE at the codec's rate.
        beyond: whether the codec's rate is above the curve's last rate; the curve's last MSE is
            then used as a bound.
        excess, excess_error: the codec's MSE minus `mse_at_rate`, paired image by image.
        behind, behind_error: the same difference in dB, paired image by image.
        rate_at_mse, rate_error: the curve's rate at the codec's MSE in nats per image; None outside
            the curve.
        gap: the gap on simulated images at the codec's rate in nats, by which the curve may be too
            high there; None if it was not measured.
        behind_by_gap: what that gap would add to `behind`, in dB; None if it was not measured.
    """

    mse_at_rate: float
    mse_at_rate_error: float
    beyond: bool
    excess: float
    excess_error: float
    behind: float
    behind_error: float
    rate_at_mse: float | None
    rate_error: float | None
    gap: float | None
    behind_by_gap: float | None


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
        curve_I = own_I = curve.distortion_IT[:, near] / curve.values
    else:
        # The tangent at the nearest point; each image's own difficulty cancels in differences.
        curve_I = -(nats + curve.log_z_IT[:, near]) / curve.beta_T[near] / curve.values
        # The same at the rate of each image, which hard images need more of.
        own_I = curve_I - (nats_I - nats) / curve.beta_T[near] / curve.values
    mse = float(mse_I.mean())
    rate_at_mse = rate_error = None
    if mses[-1] <= mse <= mses[0]:
        rate_at_mse = float(np.interp(-mse, -mses, rates))
        at = int(np.abs(mse_T - mse).argmin())
        rate_I = -curve.log_z_IT[:, at] - curve.beta_T[at] * curve.values * mse_I
        rate_error = float(standard_error(rate_I))
    behind_by_gap = None
    if (gap := gap_at(curve, float(curve.beta_T[near]))) is not None:
        lower = mse_at_rate - max(gap, 0.0) / float(curve.beta_T[near]) / curve.values
        behind_by_gap = psnr(lower) - psnr(mse_at_rate)
    return Held(
        mse_at_rate,
        float(standard_error(curve_I)),
        beyond,
        mse - mse_at_rate,
        float(standard_error(mse_I - own_I)),
        psnr(mse_at_rate) - psnr(mse),
        float(standard_error(mse_I / mse - own_I / mse_at_rate)) * 10 / math.log(10),
        rate_at_mse,
        rate_error,
        gap,
        behind_by_gap,
    )


def gap_at(curve: Curve, beta: float) -> float | None:
    """The gap on simulated images at a β, in nats, between or beside those that were measured."""
    if not curve.gaps:
        return None
    betas = np.log([gap.beta for gap in curve.gaps])
    return float(np.interp(math.log(beta), betas, [gap.value for gap in curve.gaps]))


def standard_error(values: np.ndarray) -> np.ndarray:
    """The standard error of the mean over the first axis; nan for a single value."""
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    return np.asarray(values.std(0, ddof=1) / math.sqrt(len(values)))
