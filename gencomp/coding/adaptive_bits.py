"""Probabilities of bits that adapt to what was coded, in integers alone.

Each bit is seen in contexts that go from coarse to fine. The estimate of a context leans on that of
the coarser one, as if it had been seen `_LEAN` times (a back-off, as in MacKay and Peto, "A
hierarchical Dirichlet language model", 1995), and the estimates of all contexts are averaged on the
scale of log odds. Encoder and decoder compute the same integers on every machine.

A probability is an integer 1..65535 over 2^16.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from gencomp.coding.range_coder import Decoder, Encoder
from gencomp.coding.tables import PRECISION, Integers

BITS = 16
ONE = 1 << BITS
_LEAN = 4
_STEPS = 64  # of the log odds, in one unit
_ONES, _SEEN = 32, (1 << 32) - 1
_LARGEST = 11  # of the log odds: e^-11 is about 2^-16
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio, for hashes

Bits = npt.NDArray[np.bool_]


class AdaptiveBits:
    """Counts of bits in contexts, which are found by hashes.

    Args:
        orders: the number C of contexts of a bit, from coarse to fine.
        size_bits: each order has 2^size_bits counts.
    """

    def __init__(self, orders: int, size_bits: int) -> None:
        self._first_C1 = np.arange(orders, dtype=np.int64)[:, None] << size_bits
        self._shift = np.uint64(64 - size_bits)
        # How often a context was seen, and 2^32 times how often with a 1.
        self._counts = np.zeros(orders << size_bits, np.int64)

    def cells(self, contexts_CN: npt.NDArray[np.uint64]) -> Integers:
        """The places of the counts of contexts, any 64-bit numbers."""
        mixed_CN = (contexts_CN ^ (contexts_CN >> np.uint64(29))) * _SPREAD
        return (mixed_CN >> self._shift).astype(np.int64) + self._first_C1

    def probabilities(self, cells_CN: Integers, start: int) -> Integers:
        """The probabilities of 1, [N]; `start` is the one that the coarsest context leans on."""
        counts_CN = self._counts.take(cells_CN)
        ones_CN = (counts_CN >> _ONES) << BITS
        seen_CN = (counts_CN & _SEEN) + _LEAN
        to_log_odds, from_log_odds = _log_odds()
        estimate_N: Integers | int = start
        for seen_N, ones_N in zip(seen_CN, ones_CN, strict=True):
            ones_N += _LEAN * estimate_N
            ones_N //= seen_N
            estimate_N = ones_N
        total_N = to_log_odds.take(ones_CN).sum(axis=0)
        return from_log_odds.take(total_N // len(ones_CN) + _STEPS * _LARGEST)

    def count(self, cells_CN: Integers, bits_N: Bits) -> None:
        """Add bits to the counts of their contexts."""
        added_N = (bits_N.astype(np.int64) << _ONES) + 1
        np.add.at(self._counts, cells_CN.ravel(), np.concatenate([added_N] * len(cells_CN)))


def leaning(seen: Integers, ones: Integers, before: Integers | int, weight: int) -> Integers:
    """The share of ones, as if `weight` more bits had been seen of probability `before`."""
    return ((ones << BITS) + weight * before) // (seen + weight)


class BitWriter:
    """Writes bits of known probabilities."""

    def __init__(self) -> None:
        self._encoder = Encoder()

    def code(self, bits_N: Bits | None, ones_N: Integers) -> Bits:
        """Append bits, which are 1 with the probabilities `ones_N`, and return them."""
        assert bits_N is not None
        if bits_N.size:
            self._encoder.append(bits_N.astype(np.int32), _weights().take(ones_N, axis=0))
        return bits_N

    def data(self) -> bytes:
        return self._encoder.data()


class BitReader:
    """Reads the bits that `BitWriter` wrote."""

    def __init__(self, data: bytes) -> None:
        self._decoder = Decoder(data)

    def code(self, bits_N: Bits | None, ones_N: Integers) -> Bits:
        """The next bits; `bits_N` is what a writer would have been given, and is not looked at.

        Raises:
            InputError: the stream holds no such bits.
        """
        return self._decoder.read(_weights().take(ones_N, axis=0), len(ones_N)).astype(bool)

    def finish(self) -> None:
        """Require that the stream holds nothing else; raises `InputError`."""
        self._decoder.finish()


@cache
def _weights() -> npt.NDArray[np.float64]:
    """What the range coder needs for each probability, [2^16, 2], as `range_coder.weights` does."""
    ones = np.arange(ONE, dtype=np.int64)
    pairs = np.stack([ONE - ones, ones], axis=1) << (PRECISION - BITS)
    return (pairs - 1).astype(np.float64)


@cache
def _log_odds() -> tuple[Integers, Integers]:
    """Log odds in 64ths of all probabilities 0..2^16, and the probabilities of log odds.

    Powers of exp(1/64) with 128 binary places, so no processor's exponential function is asked.
    """
    point = 128
    step, term = 0, 1 << point
    for k in range(1, 40):
        step += term
        term //= _STEPS * k
    powers = [1 << point]
    for _ in range(_STEPS * _LARGEST):
        powers.append(powers[-1] * step >> point)
    upper = [(power << BITS) // (power + (1 << point)) for power in powers]
    half_N = np.array(upper, np.int64)
    probabilities = np.clip(np.concatenate([ONE - half_N[:0:-1], half_N]), 1, ONE - 1)
    places = np.minimum(np.searchsorted(probabilities, np.arange(ONE + 1)), len(probabilities) - 1)
    return places - _STEPS * _LARGEST, probabilities
