"""Range coder for codes whose statistics are known: T codes of N symbols to bytes and back.

The coder is `constriction`'s range coder (Bamler, 2022) with a state of 64 bits. Its probabilities
come from integer tables and are exact: it gets integers that sum to 2^24 − L as float64, scales
them by exactly 1 and adds 1 to each. The codes of one image come one after the other, and what was
coded counts for the next ones (`_WEIGHT` times a training image), so large images adapt.

The bytes are the range coder's words, most significant byte first, cut to the fewest bytes that
decode to the same symbols when zeros follow them. Each sequence of codes has one stream: a stream
that the encoder would not have written is refused.
"""

from __future__ import annotations

import constriction
import numpy as np
import numpy.typing as npt

from gencomp.coding.tables import Integers, Tables, cumulative
from gencomp.errors import InputError

_WEIGHT = 16
_WORD_BYTES = 4
_STATE_BYTES = 8
_MODEL = constriction.stream.model.Categorical(perfect=False)


def encode(symbols_TN: Integers, tables: Tables) -> bytes:
    """The codes of one image as bytes.

    Args:
        symbols_TN: integers 0..L−1.
        tables: of these codes.
    """
    adaptive = _Adaptive(tables)
    encoder = constriction.stream.queue.RangeEncoder()
    rows = []
    for symbols_N in symbols_TN:
        rows.append(adaptive.rows(symbols_N))
        encoder.encode(symbols_N.astype(np.int32), _MODEL, rows[-1])
        adaptive.count(symbols_N)
    stream = encoder.get_compressed().astype(">u4").tobytes()
    return _shortest(stream, symbols_TN.ravel().astype(np.int32), np.concatenate(rows))


def decode(data: bytes, tables: Tables, codes: int) -> Integers:
    """The inverse of `encode`: `codes` codes, [T, N].

    Raises:
        InputError: `data` is not what `encode` writes for any symbols.
    """
    adaptive = _Adaptive(tables)
    decoder = constriction.stream.queue.RangeDecoder(_words(data))
    symbols_TN = np.empty((codes, tables.count), np.int64)
    try:
        for symbols_N in symbols_TN:
            adaptive.decode(decoder, symbols_N)
            adaptive.count(symbols_N)
    except AssertionError:  # constriction's word for a state that no symbol leads to
        raise _damaged() from None
    if encode(symbols_TN, tables) != data:
        raise _damaged()
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
            symbols_N[place] = decoder.decode(_MODEL, weights_NCL[place, context : context + 1])[0]


def _weights(counts_xL: Integers) -> npt.NDArray[np.float64]:
    return np.diff(cumulative(counts_xL)).astype(np.float64)


def _shortest(
    stream: bytes, symbols: npt.NDArray[np.int32], rows: npt.NDArray[np.float64]
) -> bytes:
    """The fewest bytes that decode alike: of the last state's bytes, few decide."""
    for length in range(max(0, len(stream) - _STATE_BYTES), len(stream)):
        kept = int.from_bytes(stream[:length], "big")
        # What is cut off only ever lowers the code point; the next one up may still be inside.
        for point in (kept, kept + 1):
            if point >> (8 * length):
                continue
            data = point.to_bytes(length, "big")
            decoder = constriction.stream.queue.RangeDecoder(_words(data))
            try:
                if np.array_equal(decoder.decode(_MODEL, rows), symbols):
                    return data
            except AssertionError:
                continue
    return stream


def _words(data: bytes) -> npt.NDArray[np.uint32]:
    padded = data + bytes(-len(data) % _WORD_BYTES + _STATE_BYTES)
    return np.frombuffer(padded, ">u4").astype(np.uint32)


def _damaged() -> InputError:
    return InputError("The entropy-coded code is none that the encoder writes: it is damaged.")
