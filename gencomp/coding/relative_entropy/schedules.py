"""Schedules: the times t_1 < … < t_K = 1 at which a latent's pieces end (iREC, section 3).

A block is coded best if all of its pieces have the same relative entropy, but the times at which
they do depend on the target, which the receiver does not know. So the sender chooses from a small
family that both know, and sends the number of its choice:

    0        the power law v_k = (K − k + 1)^−0.786… (1 − t_{k−1}) of Flamich et al. (2020)
    1        equal variances v_k = 1/K: the pieces are equal if all of the relative entropy is in
             the means
    2 …      equal pieces of the target whose latents all have scale 2^−j/2 and whose means have the
             share w of the relative entropy, for j = 1 … and w = 0, 1/4, 1/2, 3/4

The receiver must have the sender's times to the last bit. They are computed by +, −, × and ÷ of
float64 alone, which IEEE 754 rounds correctly everywhere, in a fixed order, and never by a
library's logarithm or power, whose last bit differs between libraries. Then they are rounded to
multiples of 2^−40, so that differences of times are exact.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from gencomp.coding.relative_entropy.auxiliary import Floats, kl_rate

POWER_LAW = 0
EQUAL_VARIANCES = 1
_EXPONENT = 0.7864636765648174
_SPREADS = tuple(1 - 2.0**-halvings for halvings in range(1, 13))  # 1 − s² of the latents
_SHARES = (0.0, 0.25, 0.5, 0.75)  # of the means
COUNT = 2 + len(_SPREADS) * len(_SHARES)

_LN_2 = 0.6931471805599453
_TIME_BITS = 40
# Times at which the rates of the family are compared with that of a target.
_PROBES_T = np.array([0.03125, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 0.9375, 0.96875, 1])


@functools.lru_cache(maxsize=512)
def times(schedule: int, pieces: int) -> Floats:
    """The times t_1 … t_K of a schedule, multiples of 2^−40, [K]; do not write into them.

    Args:
        schedule: 0 … COUNT − 1.
        pieces: the number K, at least 1.
    """
    if schedule == POWER_LAW:
        exact_K = _power_law(pieces)
    elif schedule == EQUAL_VARIANCES:
        exact_K = np.arange(1, pieces + 1) / pieces
    else:
        exact_K = _equal_pieces(*_reference(schedule), pieces)
    times_K = np.ldexp(np.rint(np.ldexp(exact_K, _TIME_BITS)), -_TIME_BITS)
    times_K[-1] = 1
    times_K.flags.writeable = False
    return times_K


def best(mean_D: Floats, scale_D: Floats) -> int:
    """The schedule whose largest piece has the least relative entropy, in the limit of many pieces.

    A schedule makes equal pieces of its reference target; so the piece of another target at time t
    is as large as the target's rate at t over that of the reference.
    """
    rate_T = kl_rate(mean_D, scale_D, _PROBES_T)
    return EQUAL_VARIANCES + int((rate_T / _reference_rates()).max(axis=1).argmin())


def _reference(schedule: int) -> tuple[float, float]:
    """The spread 1 − s² and the share of the means of a schedule's reference target."""
    spread, share = divmod(schedule - EQUAL_VARIANCES - 1, len(_SHARES))
    return _SPREADS[spread], _SHARES[share]


@functools.cache
def _reference_rates() -> Floats:
    """The rates of all schedules but the power law at the probes, with integral 1."""
    rates = [np.ones_like(_PROBES_T)]
    for schedule in range(EQUAL_VARIANCES + 1, COUNT):
        spread, share = _reference(schedule)
        bend_T = _PROBES_T * spread**2 / (1 - _PROBES_T * spread)
        rates.append(share + (1 - share) * bend_T / (-spread - math.log1p(-spread)))
    return np.array(rates)


def _equal_pieces(spread: float, share: float, pieces: int) -> Floats:
    """The times at which K pieces of a reference target are equal, by bisection."""
    whole = -spread - float(_log(np.array([1 - spread]))[0])
    target_K = np.arange(1, pieces + 1) / pieces
    low_K, high_K = np.zeros(pieces), np.ones(pieces)
    for _ in range(_TIME_BITS + 3):
        middle_K = (low_K + high_K) / 2
        bend_K = -spread * middle_K - _log(1 - spread * middle_K)
        above_K = share * middle_K + (1 - share) * (bend_K / whole) > target_K
        low_K = np.where(above_K, low_K, middle_K)
        high_K = np.where(above_K, middle_K, high_K)
    return high_K


def _power_law(pieces: int) -> Floats:
    """The times with v_k = R_{K−k} (1 − t_{k−1}), R_i = (i + 1)^−0.786…"""
    ratios_K = _exp(-_EXPONENT * _log(np.arange(pieces, 0, -1).astype(np.float64)))
    times_K = np.empty(pieces)
    time = 0.0
    for piece, ratio in enumerate(ratios_K.tolist()):
        time += ratio * (1 - time)
        times_K[piece] = time
    return times_K


def _log(x_N: Floats) -> Floats:
    """The natural logarithm of numbers above 0 by basic operations, within 1e-15 of its size."""
    fraction_N, exponent_N = np.frexp(x_N)  # exact
    low_N = fraction_N < math.sqrt(0.5)
    fraction_N = np.where(low_N, 2 * fraction_N, fraction_N)
    exponent_N = exponent_N - low_N
    z_N = (fraction_N - 1) / (fraction_N + 1)  # |z| ≤ 0.172, and ln f = 2 artanh z
    square_N, sum_N = z_N * z_N, np.zeros_like(z_N)
    for power in range(23, 0, -2):
        sum_N = sum_N * square_N + 1 / power
    return 2 * z_N * sum_N + exponent_N * _LN_2


def _exp(x_N: Floats) -> Floats:
    """The exponential of moderate numbers by basic operations, within 1e-15 of its size."""
    exponent_N = np.rint(x_N / _LN_2)
    rest_N, sum_N = x_N - exponent_N * _LN_2, np.ones_like(x_N)
    for order in range(17, 0, -1):
        sum_N = sum_N * rest_N / order + 1
    return np.ldexp(sum_N, exponent_N.astype(np.int64))
