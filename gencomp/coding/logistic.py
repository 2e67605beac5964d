"""The discretised logistic distribution of an image's values, as integer frequencies.

    p(v) = σ((v + 1 − m)/s) − σ((v − m)/s),   v = 0 … 255,   σ(x) = 1/(1 + exp(−x)),

with the mean m and the scale s in levels (Kingma et al., 2016, as PixelCNN++ repairs it: Salimans,
Karpathy, Chen and Kingma, 2017). Both ends are open: level 0 has all probability below 1 and level
255 all above 255, so that the levels share exactly 1 wherever the mean lies.

Sender and receiver must agree on every frequency, and their networks may differ in the last bits.
So the mean is rounded to a multiple of a power of two of at most s/8, which costs at most 2·10^-4
nats a value (a mean that is off by d costs d²/(6 s²)), and the scale to 12 significant bits. The
frequencies of these rounded numbers come from `gencomp.coding.portable` and from integers, so they
are the same on every processor. Only a mean within rounding errors of the middle between two
multiples can be rounded otherwise elsewhere, and a checksum of the image finds that.

The values are coded in the order of their rounded means: those with equal means share a row of
frequencies, and one call of the coder writes all of them. An image has at most some thousand
different means, so there is no Python for a single value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gencomp.coding import portable
from gencomp.coding.ans import Stack
from gencomp.coding.coders import Coder
from gencomp.coding.latent_model import Logistic
from gencomp.coding.range_coder import Decoder, Encoder
from gencomp.coding.tables import PRECISION, Integers
from gencomp.errors import InputError

LEVELS = 256

_SCALE_BITS = 12
_STEPS_A_SCALE = 8
# A scale below a thirty-second of a level has no more steps of its mean than that one.
_MOST_STEPS = 256
# Means farther from the levels than this many levels are cut off.
_FARTHEST = 1 << 20
# So many rows are computed at once, which fit into the processor's cache.
_ROWS_AT_ONCE = 128
# From so many values on, a model that is made for one row is faster than a row for each value.
_WORTH_A_MODEL = 8


def coder(likelihood: Logistic) -> Coder[Integers]:
    """The coder of the values of an image, 0..255, [H·W·3] in the order of the means.

    Raises:
        InputError: the means or the scale of the likelihood are no finite numbers.
    """
    order_N, parts = _parts(likelihood)

    def encode(encoder: Encoder, values_N: Integers) -> None:
        _require_shape(values_N, order_N)
        sorted_N = values_N[order_N]
        for part, frequencies in _rows(parts):
            encoder.put(sorted_N[part], frequencies)

    def decode(decoder: Decoder) -> Integers:
        sorted_N = np.empty(len(order_N), np.int64)
        for part, frequencies in _rows(parts):
            sorted_N[part] = decoder.take(frequencies, count=part.stop - part.start)
        return _unsorted(sorted_N, order_N)

    return Coder(encode, decode)


def push(stack: Stack, likelihood: Logistic, values_N: Integers) -> None:
    """Push the values of an image on a stack; the arguments are those of `coder`."""
    order_N, parts = _parts(likelihood)
    _require_shape(values_N, order_N)
    sorted_N = values_N[order_N]
    for part, frequencies in _rows(parts, backwards=True):
        stack.push(sorted_N[part], frequencies)


def pop(stack: Stack, likelihood: Logistic) -> Integers:
    """Pop the values of an image, [H·W·3]; the inverse of `push`."""
    order_N, parts = _parts(likelihood)
    sorted_N = np.empty(len(order_N), np.int64)
    for part, frequencies in _rows(parts):
        sorted_N[part] = stack.pop(frequencies, count=part.stop - part.start)
    return _unsorted(sorted_N, order_N)


def log_likelihood(likelihood: Logistic, values_N: Integers) -> float:
    """The logarithm of the probability of the values without any rounding, in nats."""
    scale = LEVELS * likelihood.scale
    lower_N = (values_N - LEVELS * (likelihood.mean_N + 0.5)) / scale
    upper_N = lower_N + 1 / scale
    # ln(σ(b) − σ(a)) = ln σ(b) + ln σ(−a) + ln(1 − exp(a − b))
    inside_N = np.where(values_N < LEVELS - 1, -np.logaddexp(0, -upper_N), 0.0)
    inside_N -= np.where(values_N > 0, np.logaddexp(0, lower_N), 0.0)
    both_N = (values_N > 0) & (values_N < LEVELS - 1)
    inside_N += np.where(both_N, np.log(-np.expm1(-1 / scale)), 0.0)
    return float(inside_N.sum())


def frequencies(places_R: Integers, steps: int, scale: float) -> Integers:
    """The frequencies of the levels, [R, 256]: each at least 1, each row with the sum 2^24.

    Args:
        places_R: the rounded means in steps from the lower end of level 0.
        steps: the number of steps in a level.
        scale: the rounded scale in levels.
    """
    edges_E = np.arange(1, LEVELS, dtype=np.float64)
    distances_RE = edges_E - (places_R / steps)[:, None]
    below_RE = portable.sigmoid(distances_RE / scale)
    # Rounding errors must not let the probability below an edge fall from one edge to the next.
    shares_RE = np.floor(below_RE * ((1 << PRECISION) - LEVELS)).astype(np.int64)
    shares_RE = np.maximum.accumulate(shares_RE, axis=1)
    rows_RL = np.empty((len(places_R), LEVELS), np.int64)
    rows_RL[:, 0] = shares_RE[:, 0]
    rows_RL[:, 1:-1] = np.diff(shares_RE, axis=1)
    rows_RL[:, -1] = (1 << PRECISION) - LEVELS - shares_RE[:, -1]
    return rows_RL + 1


class _Parts(NamedTuple):
    """The values of an image, sorted by their rounded means.

    Attributes:
        places_R: the different rounded means, in steps.
        ends_R: the place behind the last value of each of them.
        steps: the number of steps in a level.
        scale: the rounded scale in levels.
    """

    places_R: Integers
    ends_R: Integers
    steps: int
    scale: float


def _parts(likelihood: Logistic) -> tuple[Integers, _Parts]:
    """The order of the values by their rounded means, and these means."""
    scale = rounded_scale(likelihood.scale)
    steps = steps_of(scale)
    means_N = np.clip(LEVELS * (likelihood.mean_N + 0.5), -_FARTHEST, _FARTHEST)
    if not np.isfinite(means_N).all():
        raise InputError("A mean of the discretised logistic is not a finite number.")
    places_N = np.rint(means_N * steps).astype(np.int64)
    order_N = np.argsort(places_N, kind="stable")
    sorted_N = places_N[order_N]
    ends_R = np.append(np.flatnonzero(np.diff(sorted_N)) + 1, len(sorted_N))
    if not len(sorted_N):
        ends_R = ends_R[:0]
    return order_N, _Parts(sorted_N[ends_R - 1], ends_R, steps, scale)


def rounded_scale(scale: float) -> float:
    """A scale in levels, rounded to 12 significant bits.

    Raises:
        InputError: the scale is not a finite number above 0.
    """
    if not 0 < scale < np.inf:
        raise InputError(f"The scale of the discretised logistic is {scale}, not a number above 0.")
    mantissa, exponent = np.frexp(LEVELS * scale)
    return float(np.ldexp(np.rint(np.ldexp(mantissa, _SCALE_BITS)), exponent - _SCALE_BITS))


def steps_of(scale: float) -> int:
    """The number of steps of a rounded mean in a level, for a scale in levels: a power of two."""
    _, exponent = np.frexp(_STEPS_A_SCALE / scale)
    return int(min(max(1, 2.0 ** float(exponent)), _MOST_STEPS))


def _rows(parts: _Parts, backwards: bool = False) -> Iterator[tuple[slice, Integers]]:
    """Parts of the sorted values with their frequencies: a row that all share, or a row each."""
    blocks = range(0, len(parts.places_R), _ROWS_AT_ONCE)
    starts_R = np.append(0, parts.ends_R[:-1])
    for first in reversed(blocks) if backwards else blocks:
        chosen = slice(first, first + _ROWS_AT_ONCE)
        rows_RL = frequencies(parts.places_R[chosen], parts.steps, parts.scale)
        start_R, end_R = starts_R[chosen], parts.ends_R[chosen]
        found = list(_shared_or_each(start_R, end_R, rows_RL))
        yield from reversed(found) if backwards else found


def _shared_or_each(
    start_R: Integers, end_R: Integers, rows_RL: Integers
) -> Iterator[tuple[slice, Integers]]:
    """Values that share a row where they are many, and runs of values with a row each."""
    many_R = end_R - start_R >= _WORTH_A_MODEL
    row = 0
    while row < len(rows_RL):
        if many_R[row]:
            yield slice(int(start_R[row]), int(end_R[row])), rows_RL[row]
            row += 1
            continue
        stop = row + int(np.append(many_R[row:], True).argmax())
        counts = end_R[row:stop] - start_R[row:stop]
        yield (
            slice(int(start_R[row]), int(end_R[stop - 1])),
            np.repeat(rows_RL[row:stop], counts, axis=0),
        )
        row = stop


def _unsorted(sorted_N: Integers, order_N: Integers) -> Integers:
    values_N = np.empty_like(sorted_N)
    values_N[order_N] = sorted_N
    return values_N


def _require_shape(values_N: Integers, order_N: Integers) -> None:
    if values_N.shape != order_N.shape:
        raise InputError(
            f"A likelihood of {len(order_N)} values codes so many, not an array of shape"
            f" {values_N.shape}."
        )
