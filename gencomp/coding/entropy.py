"""An entropy coder for T codes of N symbols whose statistics are known.

The frequencies come from integer tables, the bytes from `gencomp.coding.range_coder`. A code is
coded in steps: first the symbols without parents, then those whose parents are known by then, and
so on. The codes of one image are coded in blocks, step by step and all codes of a block at once, so
there is no Python for a single symbol. After a block, its codes are added to the statistics of the
next ones with `_WEIGHT` times the weight of a training image, so that the tables adapt to large
images. A model whose steps are known in advance is a coder of `gencomp.coding.coders`. Each
sequence of codes has exactly one stream, and a stream that the encoder would not have written is
refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import constriction
import numpy as np
import numpy.typing as npt

from gencomp.coding.range_coder import MODEL, damaged, require_read, shortest, words
from gencomp.coding.tables import MIN_BITS, PRECISION, Integers, Tables, frequencies

MAX_SALT_BITS = 24
_WEIGHT = 32
_FIRST_BLOCK = 4
# So many symbols are coded at once, whose weights fit into the processor's cache.
_AT_ONCE = 1 << 14
# From so many symbols on, a model that is made for one row is faster than a row for each.
_WORTH_A_MODEL = 8

Weights = npt.NDArray[np.float64]
RangeEncoder = constriction.stream.queue.RangeEncoder
RangeDecoder = constriction.stream.queue.RangeDecoder
Categorical = constriction.stream.model.Categorical
Uniform = constriction.stream.model.Uniform


class EntropyCoder:
    """An encoder and decoder of codes with the same statistics, which are prepared once.

    Args:
        tables: the statistics of the codes.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        depths_N = _depths(tables)
        self._every = _every_symbol(tables, np.argsort(depths_N, kind="stable"))
        ends = [0, *np.cumsum(np.bincount(depths_N)).tolist()]
        self._steps = [self._every.part(start, stop) for start, stop in pairwise(ends)]
        self._statistics = _Statistics(tables.counts_NCL.reshape(-1, tables.levels))
        # The least bits of a code before the tables have adapted.
        bits_R = PRECISION - np.log2(self._statistics.weights_RL.max(axis=1) + 1)
        self._least_bits = float(bits_R.reshape(tables.count, -1).min(axis=1).sum())

    def least_bytes(self, codes: int, salt_bits: int = 0) -> int:
        """A number of bytes that no stream of so many codes and such a salt falls short of."""
        first = min(codes, _FIRST_BLOCK)
        later = (codes - first) * self._tables.count * MIN_BITS
        bits = salt_bits + first * self._least_bits + later
        return max(0, int(bits * (1 - 1e-9) / 8) - 1)  # a hair less, for these roundings

    def encode(self, symbols_TN: Integers, salt: int = 0, salt_bits: int = 0) -> bytes:
        """Encode the codes of one image.

        Args:
            symbols_TN: integers 0..L−1.
            salt: a number of `salt_bits` bits that comes before the symbols.
            salt_bits: 0..24.
        """
        encoder, statistics = RangeEncoder(), self._statistics
        if salt_bits:
            encoder.encode(salt, Uniform(1 << salt_bits))
        for chosen in _blocks(len(symbols_TN)):
            block_NB = _empty_block(self._tables, chosen)
            block_NB[:-1] = symbols_TN[chosen].T
            rows_NB = self._every.rows(block_NB)
            symbols_NB = block_NB.take(self._every.places_G, axis=0)
            for part, model in self._models(rows_NB, statistics.weights_RL):
                encoder.encode(symbols_NB[part].ravel().astype(np.int32), *model)
            if chosen.stop < len(symbols_TN):
                statistics = statistics.after(rows_NB, symbols_NB)
        return shortest(encoder)

    def decode(self, data: bytes, codes: int, salt_bits: int = 0) -> tuple[Integers, int]:
        """Decode `codes` codes, [T, N], and the salt; the inverse of `encode`.

        Raises:
            InputError: `encode` writes `data` for no symbols.
        """
        decoder, statistics = _CheckedDecoder(data), self._statistics
        salt = int(decoder.decode(1, Uniform(1 << salt_bits))[0]) if salt_bits else 0
        symbols_NT = np.empty((self._tables.count, codes), np.int64)
        for chosen in _blocks(codes):
            block_NB = _empty_block(self._tables, chosen)
            for step in self._steps:
                rows_GB = step.rows(block_NB)
                for part, model in self._models(rows_GB, statistics.weights_RL):
                    found_GB = decoder.decode(rows_GB[part].size, *model)
                    block_NB[step.places_G[part]] = found_GB.reshape(-1, rows_GB.shape[1])
            symbols_NT[:, chosen] = block_NB[:-1]
            if chosen.stop < codes:
                rows_NB = self._every.rows(block_NB)
                statistics = statistics.after(rows_NB, block_NB[self._every.places_G])
        decoder.finish()
        return symbols_NT.T, salt

    def _models(
        self, rows_GB: Integers, weights_RL: Weights
    ) -> Iterator[tuple[slice, tuple[Any, ...]]]:
        """Parts of a step that are coded at once, and their probabilities in the coder's form.

        One model for all symbols of a row, and a row for each symbol, mean the same.
        """
        places, codes = rows_GB.shape
        if self._tables.counts_NCL.shape[1] == 1 and codes >= _WORTH_A_MODEL:
            for place, row in enumerate(rows_GB[:, 0]):
                yield slice(place, place + 1), (Categorical(weights_RL[row], perfect=False),)
            return
        size = max(1, _AT_ONCE // codes)
        for start in range(0, places, size):
            part = slice(start, start + size)
            yield part, (MODEL, weights_RL.take(rows_GB[part].ravel(), axis=0))


class _CheckedDecoder:
    """A decoder that encodes what it decodes, which exposes a stream that no encoder writes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._decoder, self._again = data, RangeDecoder(words(data)), RangeEncoder()

    def decode(self, count: int, model: Any, *weights: Weights) -> npt.NDArray[np.int32]:
        try:
            symbols = self._decoder.decode(model, *(weights or (count,)))
        except AssertionError:  # constriction raises it for a state that no symbol leads to
            raise damaged() from None
        self._again.encode(symbols, model, *weights)
        require_read(self._again.pos()[0], self._data)
        return symbols

    def finish(self) -> None:
        if shortest(self._again) != self._data:
            raise damaged()


class _Statistics:
    """The counts and the coder's weights of all rows: L levels of each place in each context."""

    def __init__(self, counts_RL: Integers) -> None:
        self._counts_RL = counts_RL
        self.weights_RL = (frequencies(counts_RL) - 1).astype(np.float64)

    def after(self, rows_NB: Integers, symbols_NB: Integers) -> _Statistics:
        """The statistics after a block of symbols in their rows."""
        cells_NB = rows_NB * self._counts_RL.shape[1] + symbols_NB
        seen = np.bincount(cells_NB.ravel(), minlength=self._counts_RL.size)
        return _Statistics(self._counts_RL + _WEIGHT * seen.reshape(self._counts_RL.shape))


class _Step(NamedTuple):
    """Symbols of a code whose parents were all coded in earlier steps.

    Attributes:
        places_G: their places in the code.
        parents_PG: the places of their parents; N for a parent that a symbol lacks.
        first_G1: the first of the rows of each symbol, which has a row for each context.
        levels: the size L of the alphabet.
        count: the number N of symbols of a code.
    """

    places_G: Integers
    parents_PG: Integers
    first_G1: Integers
    levels: int
    count: int

    def part(self, start: int, stop: int) -> _Step:
        chosen = slice(start, stop)
        parents_PG = self.parents_PG[:, chosen]
        # Parents that all symbols lack stand first, and make no difference to contexts.
        used_P = np.logical_or.accumulate((parents_PG < self.count).any(axis=1))
        return self._replace(
            places_G=self.places_G[chosen],
            parents_PG=parents_PG[used_P],
            first_G1=self.first_G1[chosen],
        )

    def rows(self, block_NB: Integers) -> Integers:
        """The row of each symbol in its context, [G, B]; the last row of the block is 0."""
        if not len(self.parents_PG):
            return np.repeat(self.first_G1, block_NB.shape[1], axis=1)
        rows_GB = block_NB.take(self.parents_PG[0], axis=0)
        for parents_G in self.parents_PG[1:]:
            rows_GB *= self.levels
            rows_GB += block_NB.take(parents_G, axis=0)
        rows_GB += self.first_G1
        return rows_GB


def _every_symbol(tables: Tables, places_N: Integers) -> _Step:
    """All symbols of a code in an order that puts each one behind its parents."""
    count, contexts = tables.counts_NCL.shape[:2]
    back_NP = tables.back_NP[places_N]
    parents_NP = np.where(back_NP > 0, places_N[:, None] - back_NP, count)
    return _Step(places_N, parents_NP.T, contexts * places_N[:, None], tables.levels, count)


def _depths(tables: Tables) -> Integers:
    """The number of the step in which each symbol can be coded at the earliest."""
    depths_N = np.zeros(tables.count, np.int64)
    for place, back_P in enumerate(tables.back_NP):
        parents = place - back_P[back_P > 0]
        depths_N[place] = (depths_N[parents] + 1).max(initial=0)
    return depths_N


def _empty_block(tables: Tables, codes: slice) -> Integers:
    """Room for the symbols of codes, [N + 1, B]; the last row stands for parents that lack."""
    return np.zeros((tables.count + 1, codes.stop - codes.start), np.int64)


def _blocks(codes: int) -> Iterator[slice]:
    """The blocks of T codes: each one is half as long as all before it, or as long as the first."""
    start, stop = 0, min(codes, _FIRST_BLOCK)
    while start < codes:
        yield slice(start, stop)
        start, stop = stop, min(codes, stop + max(_FIRST_BLOCK, stop // 2))
