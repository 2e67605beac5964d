"""Entropy coder for codes whose statistics are known: T codes of N symbols to bytes and back.

The frequencies come from integer tables, the bytes from `gencomp.coding.range_coder`. The codes of
one image come one after the other, and what was coded counts for the next ones (`_WEIGHT` times a
training image), so large images adapt. The parents of a symbol may be any symbols before it, so
this decoder reads symbol by symbol; a model whose steps are known in advance is a coder of
`gencomp.coding.coders`. Each sequence of codes has one stream: a stream that the encoder would not
have written is refused.
"""

from __future__ import annotations

import constriction
import numpy as np
import numpy.typing as npt

from gencomp.coding.range_coder import MODEL, damaged, shortest, words
from gencomp.coding.tables import Integers, Tables, frequencies

_WEIGHT = 16


def encode(symbols_TN: Integers, tables: Tables) -> bytes:
    """The codes of one image as bytes.

    Args:
        symbols_TN: integers 0..L−1.
        tables: of these codes.
    """
    adaptive = _Adaptive(tables)
    encoder = constriction.stream.queue.RangeEncoder()
    for symbols_N in symbols_TN:
        encoder.encode(symbols_N.astype(np.int32), MODEL, adaptive.rows(symbols_N))
        adaptive.count(symbols_N)
    return shortest(encoder)


def decode(data: bytes, tables: Tables, codes: int) -> Integers:
    """The inverse of `encode`: `codes` codes, [T, N].

    Raises:
        InputError: `data` is not what `encode` writes for any symbols.
    """
    adaptive = _Adaptive(tables)
    decoder = constriction.stream.queue.RangeDecoder(words(data))
    symbols_TN = np.empty((codes, tables.count), np.int64)
    try:
        for symbols_N in symbols_TN:
            adaptive.decode(decoder, symbols_N)
            adaptive.count(symbols_N)
    except AssertionError:  # constriction's word for a state that no symbol leads to
        raise damaged() from None
    if encode(symbols_TN, tables) != data:
        raise damaged()
    return symbols_TN


class _Adaptive:
    """Tables that learn while coding."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._counts_NCL = tables.counts_NCL.copy()
        self._places_N = np.arange(tables.count)
        self._back = [[int(back) for back in row if back] for row in tables.back_NP]

    def rows(self, symbols_N: Integers) -> npt.NDArray[np.float64]:
        """Weights of each symbol's levels in its context, as the coder takes them, [N, L]."""
        contexts_N = self._tables.contexts(symbols_N[None])[0]
        return _weights(self._counts_NCL[self._places_N, contexts_N])

    def count(self, symbols_N: Integers) -> None:
        contexts_N = self._tables.contexts(symbols_N[None])[0]
        self._counts_NCL[self._places_N, contexts_N, symbols_N] += _WEIGHT

    def decode(self, decoder: constriction.stream.queue.RangeDecoder, symbols_N: Integers) -> None:
        """Read one code, symbol by symbol, since each one decides the contexts of later ones."""
        weights_NCL = _weights(self._counts_NCL)
        levels = self._tables.levels
        for place, distances in enumerate(self._back):
            context = 0
            for back in distances:
                context = context * levels + int(symbols_N[place - back])
            symbols_N[place] = decoder.decode(MODEL, weights_NCL[place, context : context + 1])[0]


def _weights(counts_xL: Integers) -> npt.NDArray[np.float64]:
    return (frequencies(counts_xL) - 1).astype(np.float64)
