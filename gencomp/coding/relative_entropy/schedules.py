"""Schedules: the times t_1 < … < t_K = 1 at which a latent's pieces end (iREC, section 3).

A block is coded best if all of its pieces have the same relative entropy, but the times at which
they do depend on the target, which the receiver does not know. So the sender chooses from a small
family that both know, and sends the number of its choice:

    0        the power law v_k = (K − k + 1)^−0.786… (1 − t_{k−1}) of Flamich et al. (2020)
    1        equal variances v_k = 1/K: the pieces are equal if all of the relative entropy is in
             the means
    2 …      equal pieces of the target whose latents all have scale 2^−j/2 and whose means have the
             share w of the relative entropy, for 18 numbers j from 1 to 24 and w = 0, ¼, ½, ¾

The receiver must have the sender's times to the last bit. They are computed by +, −, × and ÷ of
float64 alone, which IEEE 754 rounds correctly everywhere, in a fixed order, and never by a
library's logarithm or power, whose last bit differs between libraries. Then they are rounded to
multiples of 2^−40, so that differences of times are exact.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from gencomp.coding import portable
from gencomp.coding.latent_model import Gaussian
from gencomp.coding.relative_entropy.auxiliary import Floats, cumulative_kl, kl_rate

POWER_LAW = 0
EQUAL_VARIANCES = 1
_EXPONENT = 0.7864636765648174
_SPREADS = tuple(1 - 2.0**-halvings for halvings in (*range(1, 13), 14, 16, 18, 20, 22, 24))
_SHARES = (0.0, 0.25, 0.5, 0.75)  # of the means
COUNT = 2 + len(_SPREADS) * len(_SHARES)

# The format's times are those of ln 2 in one part; with two, one of all times would be another.
_LN_2 = (0.6931471805599453, 0.0)
_TIME_BITS = 40
# The relative entropy of a target is known at these times, and interpolated between them.
_KNOTS_T = np.concatenate([np.arange(8) / 8, 1 - 2.0 ** -np.arange(3.5, 25, 0.5), np.ones(1)])
_COMPARED = (2, 4, 8, 16, 32, 64)  # numbers of pieces for which schedules are compared
_OWN_SCHEDULE_NATS = 4.0  # what another schedule than the layer's is worth: it takes about 6 bits
_REACH_NATS = 6.0  # what one piece can tell of one latent
_MOST_NATS = 1e4


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
        spread, share = (np.full((1, 1), one) for one in _reference(schedule))
        exact_K = _equal_pieces(spread, share, pieces)[0]
    times_K = np.ldexp(np.rint(np.ldexp(exact_K, _TIME_BITS)), -_TIME_BITS)
    times_K[-1] = 1
    times_K.flags.writeable = False
    return times_K


def best(targets: Sequence[Gaussian], pieces: Sequence[int]) -> list[int]:
    """A schedule for each of the blocks of a layer, mostly the same, because that is cheap to send.

    Pieces of unequal relative entropy cost a search about half of their squared coefficient of
    variation, as a part of the block's relative entropy, whichever piece is the largest. A last
    piece that must tell more of a single latent than its candidates can costs much more: it leaves
    a residual of many standard deviations. So the schedule with the least sum of both over the
    blocks is taken, and another one for a block that gains more by it than sending it takes.

    Args:
        targets: the targets of blocks with at least one piece.
        pieces: their numbers of pieces.
    """
    if not targets:
        return []
    losses_BS = np.array([_losses(*one) for one in zip(targets, pieces, strict=True)])
    common = int(losses_BS.sum(axis=0).argmin())
    own_B = losses_BS.argmin(axis=1)
    gains_B = losses_BS[:, common] - losses_BS.min(axis=1)
    return np.where(gains_B > _OWN_SCHEDULE_NATS, own_B, common).tolist()


def _losses(target: Gaussian, pieces: int) -> Floats:
    """About what each schedule costs a search of a target, in nats, [COUNT]."""
    count = min(_COMPARED, key=lambda one: abs(math.log(one / pieces)))
    known = np.concatenate([cumulative_kl(*target, _KNOTS_T), kl_rate(*target, _KNOTS_T)])
    pieces_SK = np.diff((_interpolation(count) @ known).reshape(COUNT, count), prepend=0)
    uneven_S = pieces_SK.var(axis=1) / max(float(pieces_SK.mean()), 1e-9) * count / 2
    # The standard deviation that is left of the narrowest latent before the last piece, over s.
    left_S = 1 - _all_times(count)[:, -2]
    missed_S = np.log1p(left_S / float(target.scale_D.min()) ** 2) / 2 - _REACH_NATS
    return np.asarray(uneven_S + np.minimum(np.expm1(2 * np.maximum(missed_S, 0)) / 2, _MOST_NATS))


@functools.cache
def _all_times(pieces: int) -> Floats:
    """The times of all schedules, [COUNT, K]."""
    references = [_reference(schedule) for schedule in range(EQUAL_VARIANCES + 1, COUNT)]
    spread_S1, share_S1 = np.array(references).T[..., None]
    known = [times(schedule, pieces)[None] for schedule in (POWER_LAW, EQUAL_VARIANCES)]
    return np.concatenate([*known, _equal_pieces(spread_S1, share_S1, pieces)])


@functools.cache
def _interpolation(pieces: int) -> Floats:
    """The matrix that takes values and slopes at the knots to values at the times of all schedules,
    by cubic Hermite splines, [COUNT · K, 2 · knots]."""
    times_N = _all_times(pieces).ravel()
    left_N = np.clip(np.searchsorted(_KNOTS_T, times_N, "right") - 1, 0, len(_KNOTS_T) - 2)
    width_N = _KNOTS_T[left_N + 1] - _KNOTS_T[left_N]
    u_N = (times_N - _KNOTS_T[left_N]) / width_N
    each, slopes = np.arange(len(times_N)), len(_KNOTS_T)
    matrix = np.zeros((len(times_N), 2 * slopes))
    matrix[each, left_N] = (1 + 2 * u_N) * (1 - u_N) ** 2
    matrix[each, left_N + 1] = (3 - 2 * u_N) * u_N**2
    matrix[each, slopes + left_N] = width_N * u_N * (1 - u_N) ** 2
    matrix[each, slopes + left_N + 1] = width_N * (u_N - 1) * u_N**2
    return matrix


def _reference(schedule: int) -> tuple[float, float]:
    """The spread 1 − s² and the share of the means of a schedule's reference target."""
    spread, share = divmod(schedule - EQUAL_VARIANCES - 1, len(_SHARES))
    return _SPREADS[spread], _SHARES[share]


def _equal_pieces(spread_S1: Floats, share_S1: Floats, pieces: int) -> Floats:
    """The times at which K pieces of reference targets are equal, by bisection, [S, K]."""
    whole_S1 = -spread_S1 - portable.log(1 - spread_S1, _LN_2)
    target_K = np.arange(1, pieces + 1) / pieces
    low_SK, high_SK = (np.full((len(spread_S1), pieces), end) for end in (0.0, 1.0))
    for _ in range(_TIME_BITS + 3):
        middle_SK = (low_SK + high_SK) / 2
        bend_SK = -spread_S1 * middle_SK - portable.log(1 - spread_S1 * middle_SK, _LN_2)
        above_SK = share_S1 * middle_SK + (1 - share_S1) * (bend_SK / whole_S1) > target_K
        low_SK = np.where(above_SK, low_SK, middle_SK)
        high_SK = np.where(above_SK, middle_SK, high_SK)
    return high_SK


def _power_law(pieces: int) -> Floats:
    """The times with v_k = R_{K−k} (1 − t_{k−1}), R_i = (i + 1)^−0.786…"""
    log_K = portable.log(np.arange(pieces, 0, -1).astype(np.float64), _LN_2)
    ratios_K = _exp(-_EXPONENT * log_K)
    times_K = np.empty(pieces)
    time = 0.0
    for piece, ratio in enumerate(ratios_K.tolist()):
        time += ratio * (1 - time)
        times_K[piece] = time
    return times_K


def _exp(x_N: Floats) -> Floats:
    """The exponential of moderate numbers by basic operations, within 1e-15 of its size.

    More than half of all ratios of the power law have another last bit by `portable.exp`.
    """
    exponent_N = np.rint(x_N / _LN_2[0])
    rest_N, sum_N = x_N - exponent_N * _LN_2[0], np.ones_like(x_N)
    for order in range(17, 0, -1):
        sum_N = sum_N * rest_N / order + 1
    return np.ldexp(sum_N, exponent_N.astype(np.int64))
