"""The Bjøntegaard delta rate, which compares two rate-distortion curves by one number.

It is the average over quality of log(R/R'), as a percentage of the rate: −20 % means that the first
codec needs 20 % fewer bits for the same quality (Bjøntegaard, VCEG-M33, 2001). The logarithm of the
rate is interpolated over quality by monotone cubic pieces (PCHIP), as the later standards do, and
not by one cubic, which swings between points. The average is taken over the qualities that both
curves reach, and no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gencomp.errors import InputError

_LEAST_POINTS = 2


class BdRate(NamedTuple):
    """How much more rate one codec takes than another.

    Attributes:
        percent: the delta rate; negative if the codec takes fewer bits.
        low, high: the ends of the range of qualities over which it is the average.
    """

    percent: float
    low: float
    high: float


def bd_rate(
    rates: Sequence[float],
    qualities: Sequence[float],
    other_rates: Sequence[float],
    other_qualities: Sequence[float],
) -> BdRate | None:
    """The delta rate of a codec against another one.

    It is None if they reach no quality in common, or if a codec has a single point, or several of
    which one is better and cheaper than all others.

    Args:
        rates, qualities: the points of the codec, in any order; a quality, such as PSNR in dB,
            grows with the rate.
        other_rates, other_qualities: the points of the other codec.

    Raises:
        InputError: a rate is not above 0.
    """
    from scipy.interpolate import PchipInterpolator

    curves = []
    for rate, quality in ((rates, qualities), (other_rates, other_qualities)):
        rate_P, quality_P = _rising(rate, quality)
        if len(rate_P) < _LEAST_POINTS:
            return None
        curves.append(PchipInterpolator(quality_P, np.log(rate_P)))
    low = max(float(curve.x[0]) for curve in curves)
    high = min(float(curve.x[-1]) for curve in curves)
    if low >= high:
        return None
    own, other = (float(curve.integrate(low, high)) / (high - low) for curve in curves)
    return BdRate(100 * float(np.expm1(own - other)), low, high)


def _rising(rates: Sequence[float], qualities: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The points in the order of their quality, without those that a cheaper point exceeds."""
    rate_P, quality_P = np.array(rates, float), np.array(qualities, float)
    if not (rate_P > 0).all():
        raise InputError("a rate-distortion curve has rates above 0")
    order_P = np.lexsort((-quality_P, rate_P))
    rate_P, quality_P = rate_P[order_P], quality_P[order_P]
    best_P = np.maximum.accumulate(quality_P)
    kept_P = np.append(True, quality_P[1:] > best_P[:-1])
    return rate_P[kept_P], quality_P[kept_P]
