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
        self._seen = np.zeros(orders << size_bits, np.int64)
        self._ones = np.zeros(orders << size_bits, np.int64)

    def cells(self, contexts_CN: npt.NDArray[np.uint64]) -> Integers:
        """The places of the counts of contexts, any 64-bit numbers."""
        mixed_CN = (contexts_CN ^ (contexts_CN >> np.uint64(29))) * _SPREAD
        return (mixed_CN >> self._shift).astype(np.int64) + self._first_C1

    def probabilities(self, cells_CN: Integers, start: int) -> Integers:
        """The probabilities of 1, [N]; `start` is the one that the coarsest context leans on."""
        seen_CN, ones_CN = self._seen.take(cells_CN), self._ones.take(cells_CN)
        logits, _ = _log_odds()
        estimate_N: Integers | int = start
        total_N = np.zeros(cells_CN.shape[1], np.int64)
        for seen_N, ones_N in zip(seen_CN, ones_CN, strict=True):
            estimate_N = leaning(seen_N, ones_N, estimate_N, _LEAN)
            total_N += logits.take(estimate_N)
        return from_log_odds(total_N // len(cells_CN))

    def count(self, cells_CN: Integers, bits_N: Bits) -> None:
        """Add bits to the counts of their contexts."""
        np.add.at(self._seen, cells_CN, 1)
        np.add.at(self._ones, cells_CN[:, bits_N], 1)


def leaning(seen: Integers, ones: Integers, before: Integers | int, weight: int) -> Integers:
    """The share of ones, as if `weight` more bits had been seen of probability `before`."""
    return ((ones << BITS) + weight * before) // (seen + weight)


def from_log_odds(steps_N: Integers) -> Integers:
    """The probabilities of log odds that are given in 64ths."""
    most = _STEPS * _LARGEST
    return _log_odds()[1].take(np.clip(steps_N, -most, most) + most)


class BitWriter:
    """Writes bits of known probabilities."""

    def __init__(self) -> None:
        self._encoder = Encoder()

    def code(self, bits_N: Bits | None, ones_N: Integers) -> Bits:
        """Append bits, which are 1 with the probabilities `ones_N`, and return them."""
        assert bits_N is not None
        if bits_N.size:
            self._encoder.append(bits_N.astype(np.int32), _weights(ones_N))
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
        return self._decoder.read(_weights(ones_N)).astype(bool)

    def finish(self) -> None:
        """Require that the stream holds nothing else; raises `InputError`."""
        self._decoder.finish()


def _weights(ones_N: Integers) -> npt.NDArray[np.float64]:
    """What the range coder needs, as `range_coder.weights` makes it of frequencies."""
    weights_N2 = np.empty((len(ones_N), 2))
    weights_N2[:, 0] = ((ONE - ones_N) << (PRECISION - BITS)) - 1
    weights_N2[:, 1] = (ones_N << (PRECISION - BITS)) - 1
    return weights_N2


@cache
def _log_odds() -> tuple[Integers, Integers]:
    """Log odds in 64ths of all probabilities 0..2^16, and the probabilities of log odds.

    Powers of exp(1/64) with 128 binary places, so no processor's exponential function is asked.
    """
    places = 128
    step, term = 0, 1 << places
    for k in range(1, 40):
        step += term
        term //= _STEPS * k
    powers = [1 << places]
    for _ in range(_STEPS * _LARGEST):
        powers.append(powers[-1] * step >> places)
    upper = [(power << BITS) // (power + (1 << places)) for power in powers]
    half_N = np.array(upper, np.int64)
    probabilities = np.clip(np.concatenate([ONE - half_N[:0:-1], half_N]), 1, ONE - 1)
    logits = np.searchsorted(probabilities, np.arange(ONE + 1)) - _STEPS * _LARGEST
    return np.clip(logits, -_STEPS * _LARGEST, _STEPS * _LARGEST), probabilities
