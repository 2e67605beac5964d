"""Weighted mixtures of splits: one split and one order, with the guarantees of their parts.

The stream of a mixture interleaves the streams of its parts. In each block of 4096 positions a
keyed permutation says which position belongs to which part. The samples of a part follow one
another exactly as in the part's own order, from epoch to epoch: none is lost or repeated. With
weights w and their sum W, after b blocks part i has given b · 4096 · w_i / W samples, rounded up
or down.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from shards.errors import ShardError
from shards.reading.order import Order, checked_positions, permute, round_keys
from shards.reading.reader import Sample, Split

_BLOCK = 4096


class Part(NamedTuple):
    """A split, the order in which a mixture reads it, and its whole-number weight."""

    split: Split
    order: Order
    weight: int


def mix(parts: Sequence[Part]) -> tuple[MixedSplit, MixtureOrder]:
    """The split that joins the parts, and the order that draws from them by weight.

    Raises `ShardError` when an order is not for its split, when the seeds differ, and for weights
    below 1 or below 1/4096 of their sum.
    """
    if not parts:
        raise ShardError("a mixture needs at least one part")
    for part in parts:
        if part.order.length != len(part.split):
            raise ShardError(
                f"the order is for {part.order.length} rows but split {part.split.name!r} of "
                f"{part.split.where} has {len(part.split)}"
            )
    seeds = {part.order.seed for part in parts}
    if len(seeds) > 1:
        raise ShardError(f"the parts of a mixture share one seed, not {sorted(seeds)}")
    weights = tuple(part.weight for part in parts)
    if min(weights) < 1 or min(weights) * _BLOCK < sum(weights):
        raise ShardError(
            f"the weights {', '.join(map(str, weights))} of a mixture must be whole numbers from "
            f"1, none below 1/{_BLOCK} of their sum"
        )
    split = MixedSplit(tuple(part.split for part in parts), weights)
    return split, MixtureOrder(split.key_hash, tuple(part.order for part in parts), weights)


class MixedSplit:
    """Several splits read as one: the rows of each part follow those of the part before.

    The mixture is read like a `Split`; keys, labels, places and errors are those of the parts.
    It may be shared by threads, inherited by forked processes and pickled.
    """

    def __init__(self, parts: tuple[Split, ...], weights: tuple[int, ...]) -> None:
        self.parts = parts
        self.name = " + ".join(part.name for part in parts)
        self.where = " + ".join(part.where for part in parts)
        self.index_hash = _digest("indexes", [part.index_hash for part in parts])
        self.key_hash = _digest(
            "parts", [f"{part.key_hash}*{w}" for part, w in zip(parts, weights, strict=True)]
        )
        self.shard_lengths = np.concatenate([part.shard_lengths for part in parts])
        self.shard_names = [
            f"{i}/{name}" for i, part in enumerate(parts) for name in part.shard_names
        ]
        *self._begins, self._length = accumulate((len(part) for part in parts), initial=0)

    def __len__(self) -> int:
        return self._length

    def place_in_parts(self, row: int) -> tuple[int, int]:
        """The part that a row lies in, and the number of the row in that part."""
        if not 0 <= row < len(self):
            raise ShardError(f"{self.where}: the mixture has rows 0 to {len(self) - 1}, not {row}")
        part = bisect_right(self._begins, row) - 1
        return part, row - self._begins[part]

    def key(self, row: int) -> str:
        part, own = self.place_in_parts(row)
        return self.parts[part].key(own)

    def label(self, row: int) -> int | None:
        part, own = self.place_in_parts(row)
        return self.parts[part].label(own)

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """The labels of many rows, int64; -1 for none. Each part has its own classes."""
        rows = np.asarray(rows, dtype=np.int64)
        labels = np.empty_like(rows)
        for part, here, own in self._by_part(rows):
            labels[here] = part.labels(own)
        return labels

    def read(self, row: int) -> Sample:
        """Read a sample as `Split.read` does; the sample's row is its row in the mixture."""
        part, own = self.place_in_parts(row)
        return self.parts[part].read(own)._replace(row=row)

    def read_many(self, rows: np.ndarray) -> list[Sample]:
        """The samples at `rows` (int64), in that order."""
        return [self.read(row) for row in np.asarray(rows, dtype=np.int64).tolist()]

    def image(self, row: int, out: np.ndarray | None = None) -> np.ndarray:
        """The decoded image of a row, as from `Split.image`."""
        part, own = self.place_in_parts(row)
        return self.parts[part].image(own, out)

    def maps(self, row: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The maps of a row by name, as from `Split.maps`."""
        part, own = self.place_in_parts(row)
        return self.parts[part].maps(own, names)

    def place(self, row: int) -> tuple[str, str, int]:
        """The place of a row in its part, as from `Split.place`."""
        part, own = self.place_in_parts(row)
        return self.parts[part].place(own)

    def fetch_soon(self, rows: np.ndarray) -> None:
        """Start to fetch the remote shards that hold `rows`, as `Split.fetch_soon` does."""
        for part, _, own in self._by_part(np.asarray(rows, dtype=np.int64)):
            part.fetch_soon(own)

    def _by_part(self, rows: np.ndarray) -> list[tuple[Split, np.ndarray, np.ndarray]]:
        """A (part, mask of its rows, its own rows) for each part that has some of the rows."""
        which = np.searchsorted(self._begins, rows, side="right") - 1
        return [
            (self.parts[i], here, rows[here] - self._begins[i])
            for i in np.unique(which).tolist()
            for here in [which == i]
        ]


@dataclass(frozen=True)
class MixtureOrder:
    """The endless stream of a mixture, with random access; see `mix`.

    A mixture has no epochs of its own; each part keeps its own epochs. To look up a position, the
    permutation of its block is computed once and then shared by the positions nearby.
    """

    key_hash: str
    orders: tuple[Order, ...]
    weights: tuple[int, ...]

    @property
    def length(self) -> int:
        return sum(order.length for order in self.orders)

    @property
    def seed(self) -> int:
        return self.orders[0].seed

    @property
    def look_ahead(self) -> int:
        """The number of positions that satisfies the part with the furthest look-ahead."""
        total = sum(self.weights)
        return max(
            -(-order.look_ahead * total // weight)
            for order, weight in zip(self.orders, self.weights, strict=True)
        )

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """The rows of the `MixedSplit` at stream positions (int64, any shape, any order)."""
        positions = checked_positions(positions)
        parts, own = self.parts(positions.ravel())
        rows = np.empty_like(own)
        begin = 0
        for i, order in enumerate(self.orders):
            here = parts == i
            rows[here] = begin + order.rows(own[here])
            begin += order.length
        return rows.reshape(positions.shape)

    def parts(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The part of each position, and the place in that part's stream; all arrays int64 [n]."""
        blocks, offsets = np.divmod(positions, _BLOCK)
        parts, own = np.empty_like(offsets), np.empty_like(offsets)
        for block in np.unique(blocks).tolist():
            here = blocks == block
            table = _block(self.key_hash, self.seed, self.weights, block)
            parts[here], own[here] = table[:, offsets[here]]
        return parts, own


@lru_cache(maxsize=64)
def _block(key_hash: str, seed: int, weights: tuple[int, ...], block: int) -> np.ndarray:
    """The part and the position in that part's stream for each position of a block.

    Returns an int64 [2, 4096] array.
    """
    keys = round_keys(f"MixtureOrder/1/{key_hash}/{seed}/{block}", _BLOCK)
    cells = permute(np.arange(_BLOCK), _BLOCK, keys[:, None])
    before, after = (_shared_out(weights, b * _BLOCK) for b in (block, block + 1))
    part = np.searchsorted(np.subtract(after, before), cells, side="right")
    own = np.empty_like(part)
    for i in range(len(weights)):
        here = np.flatnonzero(part == i)
        begin = before[i] - (before[i - 1] if i else 0)
        own[here] = begin + np.arange(len(here))
    table = np.stack([part, own])
    table.flags.writeable = False  # the cache hands the same array to everyone
    return table


def _shared_out(weights: tuple[int, ...], samples: int) -> list[int]:
    """The number of the first `samples` samples that go to each part or to a part before it.

    These cumulative numbers are rounded down, so that the shares of the parts always add up.
    """
    total = sum(weights)
    return [samples * cumulative // total for cumulative in accumulate(weights)]


def _digest(what: str, words: list[str]) -> str:
    return hashlib.sha256("\n".join(["mixture/1", what, *words]).encode()).hexdigest()
