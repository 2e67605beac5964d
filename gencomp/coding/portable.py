"""Elementary functions of float64 arrays that give the same bits on every processor.

Frequencies that a decoder must reproduce cannot come from the exponential of a library: its last
bit depends on the processor and on the version. The functions here use only additions,
subtractions, multiplications, divisions, comparisons, roundings to integers and scalings by powers
of two, each as one call of NumPy for a whole array. IEEE 754 defines the result of each of these to
the last bit, and since every call rounds its own result, no compiler can fuse two of them. Sums
over an axis, whose order NumPy does not promise, do not occur.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_LOG2_E = 1.4426950408889634
# ln 2 in two parts, of which the first has so few bits that its product with an exponent is exact.
_LN_2_HIGH = 6.93147180369123816490e-01
_LN_2_LOW = 1.90821492927058770002e-10
_LN_2 = (_LN_2_HIGH, _LN_2_LOW)
# 1/k!, k = 13 … 0: the remainder is below 2^-57 for |r| ≤ ln 2 / 2. Each value is the nearest
# float64 of an exact fraction, so that every reader of this file has the same.
_TAYLOR = (
    1 / 6227020800,
    1 / 479001600,
    1 / 39916800,
    1 / 3628800,
    1 / 362880,
    1 / 40320,
    1 / 5040,
    1 / 720,
    1 / 120,
    1 / 24,
    1 / 6,
    0.5,
    1.0,
    1.0,
)
# 1/(2k + 1), k = 11 … 0: the remainder is below 1e-19.
_ARTANH = tuple(1 / (2 * k + 1) for k in range(11, -1, -1))
_ROOT_HALF = 0.7071067811865476
# Hart's rational function of the normal distribution (algorithm 5666), as West (2005) prints it.
_HART_ABOVE = (
    3.52624965998911e-02,
    0.700383064443688,
    6.37396220353165,
    33.912866078383,
    112.079291497871,
    221.213596169931,
    220.206867912376,
)
_HART_BELOW = (
    8.83883476483184e-02,
    1.75566716318264,
    16.064177579207,
    86.7807322029461,
    296.564248779674,
    637.333633378831,
    793.826512519948,
    440.413735824752,
)
# From here on the probability of the tail is below 1e-12 and nobody's concern.
_FAR = 7.07
# The smallest probability whose quantile is asked for.
_LEAST = 2.0**-32
_DENSITY_AT_0 = 0.3989422804014327
# Each step squares the error, which is 1/128 at first.
_NEWTON_STEPS = 5


def exp(x: Floats) -> Floats:
    """The exponential function, within 2 units in the last place; x is cut off at ±700."""
    x = np.clip(x, -700.0, 700.0)
    power = np.rint(x * _LOG2_E)
    rest = x - power * _LN_2_HIGH
    rest -= power * _LN_2_LOW
    return np.ldexp(_polynomial(rest, _TAYLOR), power.astype(np.int32))


def log(x: Floats, ln_2: tuple[float, float] = _LN_2) -> Floats:
    """The natural logarithm of positive numbers, within 3 units in the last place of 1.

    Args:
        x: the numbers.
        ln_2: two parts of ln 2; other ones give other last bits.
    """
    mantissa, power = np.frexp(x)
    small = mantissa < _ROOT_HALF
    mantissa = np.where(small, 2.0 * mantissa, mantissa)
    power = np.where(small, power - 1, power).astype(np.float64)
    # ln m = 2 artanh t with |t| ≤ 0.172.
    t = (mantissa - 1.0) / (mantissa + 1.0)
    series = _polynomial(t * t, _ARTANH)
    series *= 2.0 * t
    series += power * ln_2[1]
    return power * ln_2[0] + series


def sigmoid(x: Floats) -> Floats:
    """The value of 1 / (1 + exp(−x)), to an absolute error of 2e-16."""
    small = exp(-np.abs(x))
    larger = 1.0 / (1.0 + small)
    return np.where(x < 0, small * larger, larger)


def normal_cdf(x: Floats) -> Floats:
    """The distribution function of the standard normal distribution, to an absolute error of 1e-12.

    It is 0 or 1 where |x| is above 7.07.
    """
    size = np.minimum(np.abs(x), _FAR)
    tail = exp(-0.5 * (size * size))
    tail *= _polynomial(size, _HART_ABOVE)
    tail /= _polynomial(size, _HART_BELOW)
    tail = np.where(size < _FAR, tail, 0.0)
    return np.where(x < 0, tail, 1.0 - tail)


def normal_quantile(u: Floats) -> Floats:
    """The inverse of `normal_cdf` for probabilities from 2^-32 to 1 − 2^-32.

    Others are taken for the nearest of these. The error is below 1e-9, and below 1e-11 within ±5.
    """
    lower = np.maximum(np.minimum(u, 1.0 - u), _LEAST)
    # Newton's method from the right: the distribution function is convex below 0.
    x = _GRID[np.searchsorted(_GRID_CDF, lower)]
    for _ in range(_NEWTON_STEPS):
        density = exp(-0.5 * (x * x)) * _DENSITY_AT_0
        x = x - (normal_cdf(x) - lower) / density
    return np.where(u == 0.5, 0.0, np.where(u < 0.5, x, -x))


def _polynomial(x: Floats, coefficients: Sequence[float]) -> Floats:
    """Horner's rule, the coefficient of the highest power first."""
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value *= x
        value += coefficient
    return value


_GRID = np.arange(-1024, 1) / 128
_GRID_CDF = normal_cdf(_GRID)
