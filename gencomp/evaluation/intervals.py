"""Intervals of means over images: Student's t, corrected for skewness by Hall's transformation.

A mean m of n values with the standard error s and the skewness g has the standardised error
T = (m − μ)/s. With γ = g/√n, the transformed error

    H(T) = T + γ/3 T² + γ²/27 T³ + γ/6

has less skewness than T (Hall, 1992, "On the removal of skewness by transformation"), so the ends
of the interval solve H(T) = ±t, where t is the quantile of Student's t. Where g is 0 this is the t
interval. No random numbers are drawn.

Measured coverage at 95 %, of 4,000 repetitions (1,500 at n = 64):

    values                  n    here   t      BCa    percentile bootstrap
    normal                  4    0.948  0.952  0.802  0.801
                            8    0.941  0.947  0.880  0.878
                            16   0.950  0.954  0.921  0.923
                            64   0.950  0.951  0.940  0.938
    lognormal, σ = 0.5      4    0.921  0.913  0.759  0.759
                            8    0.935  0.922  0.863  0.856
                            16   0.943  0.930  0.903  0.900
                            64   0.945  0.939  0.937  0.937
    lognormal, σ = 1        4    0.867  0.821  0.687  0.678
                            8    0.899  0.838  0.809  0.790
                            16   0.917  0.860  0.858  0.843
                            64   0.929  0.889  0.901  0.890

The bootstrap of t covers as much, but its intervals are twice as wide at n = 4 and infinite at 2.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

LEVEL = 0.95
RULE = f"{LEVEL:.0%}, Student's t over images, corrected for skewness (Hall, 1992)"


def standard_error(values_N: np.ndarray) -> float:
    """The standard error of the mean of independent values; not a number for a single one."""
    if len(values_N) < 2:
        return math.nan
    return float(values_N.std(ddof=1)) / math.sqrt(len(values_N))


def of_mean(*samples_N: np.ndarray) -> tuple[float, float] | None:
    """The ends of the interval of a mean, or of the sum of the means of independent samples.

    The degrees of freedom of several samples are those of Welch and Satterthwaite.

    Args:
        samples_N: the values of each sample, float64.

    Returns:
        None where the error is unknown: a sample has a single value, or a value is not finite.
    """
    mean = variance = third = shares = 0.0
    for values_N in samples_N:
        count = len(values_N)
        if count < 2 or not np.isfinite(values_N).all():
            return None
        centred_N = values_N - values_N.mean()
        share = float(centred_N @ centred_N) / (count - 1) / count
        mean, variance = mean + float(values_N.mean()), variance + share
        # The skewness of the sample is taken with its own, biased variance.
        third += float((centred_N**3).mean()) / count**2 * ((count - 1) / count) ** -1.5
        shares += share**2 / (count - 1)
    if variance == 0:
        return mean, mean
    return of_estimate(mean, math.sqrt(variance), variance**2 / shares, third / variance**1.5)


def of_estimate(
    value: float, standard_error: float, degrees: float, skewness: float = 0.0
) -> tuple[float, float] | None:
    """The ends of the interval of an estimate.

    Args:
        value: the estimate.
        standard_error: its standard error; not a number if that is unknown, as for one image.
        degrees: the degrees of freedom of the standard error.
        skewness: γ, the skewness of the estimate.

    Returns:
        None where the standard error is unknown.
    """
    if not math.isfinite(standard_error):
        return None
    high, low = (_untransformed(sign * quantile(degrees), skewness) for sign in (1, -1))
    return value - high * standard_error, value - low * standard_error


def at_least(least: float, ends: tuple[float, float] | None) -> tuple[float, float] | None:
    """The part of an interval in which a quantity can lie, such as an error of 0 or more."""
    return ends and (max(ends[0], least), max(ends[1], least))


def quantile(degrees: float) -> float:
    """The quantile of Student's t at the upper end of an interval."""
    return float(special.stdtrit(degrees, (1 + LEVEL) / 2))


def _untransformed(transformed: float, skewness: float) -> float:
    """The standardised error T with H(T) = `transformed`."""
    third = skewness / 3
    if abs(third) < 1e-6:  # H(T) = T but for terms of this size
        return transformed
    return float(np.cbrt(1 + 3 * third * (transformed - skewness / 6)) - 1) / third
