"""The Zipf code of the index of a candidate: p(k) ∝ k^-λ for k = 1 … N.

The index of the Poisson functional representation is small as a rule, and rarely very large. With λ
= 1 + 1/(E[log2 k] + 1), this code takes at most E[log2 k] + log2(E[log2 k] + 1) + 1 bits on average
(Li and El Gamal, 2018).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from gencomp.coding import portable
from gencomp.coding.coders import Coder
from gencomp.coding.range_coder import Decoder, Encoder
from gencomp.coding.tables import PRECISION, Integers
from gencomp.errors import InputError

MOST = 1 << 16


def coder(count: int, indices: int, log2_index: float) -> Coder[Integers]:
    """The coder of some indices, 0..count − 1, [indices].

    Args:
        count: the number N of candidates, 1..65536.
        indices: the number of indices.
        log2_index: what log2(index + 1) is expected to be, in bits; about the divergence and 1.
    """
    row = frequencies(count, log2_index)

    def encode(encoder: Encoder, indices_B: Integers) -> None:
        encoder.put(indices_B, row)

    def decode(decoder: Decoder) -> Integers:
        return decoder.take(row, count=indices)

    return Coder(encode, decode)


@lru_cache(64)
def frequencies(count: int, log2_index: float) -> Integers:
    """The frequencies of the indices, int64 [count], with the sum 2^24.

    Raises:
        InputError: there are no candidates, or too many.
    """
    if not 1 <= count <= MOST:
        raise InputError(f"A Zipf code has 1 to {MOST} indices, not {count}.")
    exponent = 1 + 1 / (max(0.0, log2_index) + 1)
    weights = portable.exp(-exponent * portable.log(np.arange(1.0, count + 1)))
    whole = np.floor(weights * 2.0**40) + 1  # exact integers, whose sum is exact in any order
    free = (1 << PRECISION) - count
    row: Integers = np.floor(whole * (free / whole.sum())).astype(np.int64) + 1
    row[0] += (1 << PRECISION) - int(row.sum())
    row.flags.writeable = False
    return row


def bits(index: int, count: int, log2_index: float) -> float:
    """The length of the code of one index."""
    return float(PRECISION - np.log2(frequencies(count, log2_index)[index]))
