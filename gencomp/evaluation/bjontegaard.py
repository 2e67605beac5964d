"""The Bjøntegaard deltas, which compare two rate-distortion curves by one number.

The delta rate is the average over quality of log(R/R'), as a percentage of the rate: −20 % means
that the first codec needs 20 % fewer bits for the same quality. The delta of a metric is the
average over the logarithm of the rate of Q − Q' (Bjøntegaard, VCEG-M33, 2001). The curves are
interpolated by monotone cubic pieces (PCHIP), as the later standards do, and not by one cubic,
which swings between points. The averages are taken over the qualities that both curves reach, and
over the rates that both have, and no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gencomp.errors import InputError

if TYPE_CHECKING:
    from scipy.interpolate import PchipInterpolator

INTERPOLATION = "PCHIP of log rate over the metric, and of the metric over log rate"
_LEAST_POINTS = 2


class NotComparable(InputError):
    """Two curves have no delta; the message says why."""


class BdRate(NamedTuple):
    """How much more rate one codec takes than another at equal quality.

    Attributes:
        percent: the delta rate; negative if the codec takes fewer bits.
        low, high: the ends of the range of qualities over which it is the average.
    """

    percent: float
    low: float
    high: float


class BdQuality(NamedTuple):
    """How much better one codec is than another at equal rate.

    Attributes:
        difference: the delta in the unit of the quality; positive if the codec is better.
        low, high: the ends of the range of rates over which it is the average.
    """

    difference: float
    low: float
    high: float


def bd_rate(
    rates: Sequence[float],
    qualities: Sequence[float],
    other_rates: Sequence[float],
    other_qualities: Sequence[float],
) -> BdRate:
    """The delta rate of a codec against another one.

    Args:
        rates, qualities: the points of the codec, in any order; a quality, such as PSNR in dB,
            grows with the rate. Points that a cheaper point exceeds do not count.
        other_rates, other_qualities: the points of the other codec.

    Raises:
        InputError: a rate is not above 0.
        NotComparable: the codecs reach no quality in common, or one of them has a single point
            that counts.
    """
    from scipy.interpolate import PchipInterpolator

    both = _curve(rates, qualities), _curve(other_rates, other_qualities)
    own, other = (PchipInterpolator(quality_P, np.log(rate_P)) for rate_P, quality_P in both)
    mean, low, high = _mean_difference(own, other, "qualities")
    return BdRate(100 * float(np.expm1(mean)), low, high)


def bd_quality(
    rates: Sequence[float],
    qualities: Sequence[float],
    other_rates: Sequence[float],
    other_qualities: Sequence[float],
) -> BdQuality:
    """The delta of a quality of a codec against another one, such as BD-PSNR.

    Args:
        rates, qualities: the points of the codec, as for `bd_rate`.
        other_rates, other_qualities: the points of the other codec.

    Raises:
        InputError: a rate is not above 0.
        NotComparable: the codecs have no rate in common, or one of them has a single point that
            counts.
    """
    from scipy.interpolate import PchipInterpolator

    both = _curve(rates, qualities), _curve(other_rates, other_qualities)
    own, other = (PchipInterpolator(np.log(rate_P), quality_P) for rate_P, quality_P in both)
    mean, low, high = _mean_difference(own, other, "rates")
    return BdQuality(mean, float(np.exp(low)), float(np.exp(high)))


def counting_points(rates: Sequence[float], qualities: Sequence[float]) -> int:
    """How many points of a curve count, since no cheaper point exceeds them."""
    return len(_rising(rates, qualities)[0])


def _curve(rates: Sequence[float], qualities: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    rate_P, quality_P = _rising(rates, qualities)
    if len(rate_P) < _LEAST_POINTS:
        raise NotComparable("a curve has a single point that no cheaper point exceeds")
    return rate_P, quality_P


def _mean_difference(
    own: PchipInterpolator, other: PchipInterpolator, axis: str
) -> tuple[float, float, float]:
    """The mean of own − other over the range that both curves have, and the ends of the range."""
    low = max(float(curve.x[0]) for curve in (own, other))
    high = min(float(curve.x[-1]) for curve in (own, other))
    if low >= high:
        raise NotComparable(f"the curves have no {axis} in common")
    areas = [float(curve.integrate(low, high)) for curve in (own, other)]
    return (areas[0] - areas[1]) / (high - low), low, high


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
