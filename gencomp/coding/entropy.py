"""An entropy coder for T codes of N symbols whose statistics are known.

The frequencies come from integer tables, the bytes from `gencomp.coding.range_coder`. The codes of
one image are coded one after the other, and each one is added to the statistics of the next ones
with `_WEIGHT` times the weight of a training image, so that the tables adapt to large images. The
parents of a symbol may be any symbols before it, so this decoder reads symbol by symbol; a model
whose steps are known in advance is a coder of `gencomp.coding.coders`. Each sequence of codes has
exactly one stream, and a stream that the encoder would not have written is refused.
"""

from __future__ import annotations

import constriction
import numpy as np
import numpy.typing as npt

from gencomp.coding.range_coder import MODEL, damaged, shortest, words
from gencomp.coding.tables import Integers, Tables, frequencies

_WEIGHT = 16


def encode(symbols_TN: Integers, tables: Tables) -> bytes:
    """Encode the codes of one image.

    Args:
        symbols_TN: integers 0..L−1.
        tables: the statistics of these codes.
    """
    adaptive = _Adaptive(tables)
    encoder = constriction.stream.queue.RangeEncoder()
    for symbols_N in symbols_TN:
        encoder.encode(symbols_N.astype(np.int32), MODEL, adaptive.rows(symbols_N))
        adaptive.count(symbols_N)
    return shortest(encoder)


def decode(data: bytes, tables: Tables, codes: int) -> Integers:
    """Decode `codes` codes, [T, N]; the inverse of `encode`.

    Raises:
        InputError: `encode` writes `data` for no symbols.
    """
    adaptive = _Adaptive(tables)
    decoder = constriction.stream.queue.RangeDecoder(words(data))
    symbols_TN = np.empty((codes, tables.count), np.int64)
    try:
        for symbols_N in symbols_TN:
            adaptive.decode(decoder, symbols_N)
            adaptive.count(symbols_N)
    except AssertionError:  # constriction raises it for a state that no symbol leads to
        raise damaged() from None
    if encode(symbols_TN, tables) != data:
        raise damaged()
    return symbols_TN


class _Adaptive:
    """Tables that count symbols while these are coded."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._counts_NCL = tables.counts_NCL.copy()
        self._places_N = np.arange(tables.count)
        self._back = [[int(back) for back in row if back] for row in tables.back_NP]

    def rows(self, symbols_N: Integers) -> npt.NDArray[np.float64]:
        """The weights of each symbol's levels in its context, in the coder's form, [N, L]."""
        contexts_N = self._tables.contexts(symbols_N[None])[0]
        return _weights(self._counts_NCL[self._places_N, contexts_N])

    def count(self, symbols_N: Integers) -> None:
        contexts_N = self._tables.contexts(symbols_N[None])[0]
        self._counts_NCL[self._places_N, contexts_N, symbols_N] += _WEIGHT

    def decode(self, decoder: constriction.stream.queue.RangeDecoder, symbols_N: Integers) -> None:
        """Read one code symbol by symbol, since each symbol decides the contexts of later ones."""
        weights_NCL = _weights(self._counts_NCL)
        levels = self._tables.levels
        for place, distances in enumerate(self._back):
            context = 0
            for back in distances:
                context = context * levels + int(symbols_N[place - back])
            symbols_N[place] = decoder.decode(MODEL, weights_NCL[place, context : context + 1])[0]


def _weights(counts_xL: Integers) -> npt.NDArray[np.float64]:
    return (frequencies(counts_xL) - 1).astype(np.float64)
