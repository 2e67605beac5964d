"""An order for sets that are fetched shard by shard: whole shards in turn, mixed inside windows.

In each epoch the shards stand in a keyed random sequence, and their samples follow one another in
the same sequence. It is cut into `lanes` contiguous pieces that are read side by side: position p
of the epoch is place p div lanes of lane p mod lanes. Inside a lane, windows of `window` places are
permuted.

Ranks take strided shares of each batch. So when the number of ranks divides `lanes` and the batch,
or `lanes` divides both, a rank (and a node of ranks) reads only the shards of its own lanes, and at
any time only the shards that its windows span. The global batches do not depend on this: they are
the same for any number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from shards.errors import ShardError
from shards.reading.order import checked_positions, mix, permute, round_keys

_MOST_TABLES = 64  # tables of epochs that are kept; a few batches of a small set span many epochs


class _Epoch(NamedTuple):
    """The shards in the sequence of one epoch; both arrays are int64 [shards].

    `ends` are the places at which the shards end; `shift` is added to a place to get its row.
    """

    ends: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True, eq=False)
class WindowedOrder:
    """An endless stream of epochs, each a permutation of the rows, with random access.

    A position takes O(log shards) time; an epoch takes the memory of two integers for each shard.

    Args:
        key_hash: The hash that identifies the data, `Split.key_hash`; other data have another
            order.
        seed: The seed of the run.
        shard_lengths: The number of samples in each shard, int64 [shards], in the order of the
            rows.
        window: The number of samples that are mixed with one another, at least 1. The larger the
            window, the closer the order is to `EpochOrder` and the more shards are needed at once.
        lanes: The number of pieces of the sequence that are read side by side, at least 1. With a
            multiple of the number of ranks, each rank reads only its own shards.
    """

    key_hash: str
    seed: int
    shard_lengths: np.ndarray
    window: int
    lanes: int
    _epochs: dict[int, _Epoch] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.length < 1 or min(self.shard_lengths) < 0:
            raise ShardError(
                "an order needs shards of at least one row in all, not "
                f"{len(self.shard_lengths)} shards of {self.length} rows"
            )
        if self.window < 1 or self.lanes < 1:
            raise ShardError(
                f"the window {self.window} and the lanes {self.lanes} of an order must be at least "
                "1 sample and 1 lane"
            )

    @cached_property
    def length(self) -> int:
        return int(np.sum(self.shard_lengths))

    @property
    def look_ahead(self) -> int:
        """One window of every lane, since a window needs all its shards from its start."""
        return min(self.length, self.window * self.lanes)

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """The rows at stream positions (int64, any shape, any order).

        Raises `ShardError` when a position is negative.
        """
        positions = checked_positions(positions)
        epochs, offsets = np.divmod(positions.ravel(), self.length)
        rows = np.empty_like(offsets)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            places = self._places(epoch, offsets[here])
            table = self._epoch(epoch)
            shard = np.searchsorted(table.ends, places, side="right")
            rows[here] = places + table.shift[shard]
        return rows.reshape(positions.shape)

    def _places(self, epoch: int, offsets: np.ndarray) -> np.ndarray:
        """The places in the sequence of shards for offsets into the epoch."""
        index, lane = np.divmod(offsets, self.lanes)
        whole, rest = divmod(self.length, self.lanes)  # the first `rest` lanes are one longer
        lane_length = whole + (lane < rest)
        lane_begin = lane * whole + np.minimum(lane, rest)
        in_window = index % self.window
        window_begin = index - in_window
        begin = lane_begin + window_begin
        sizes = np.minimum(self.window, lane_length - window_begin)
        places = np.empty_like(offsets)
        for size in np.unique(sizes).tolist():  # at most three sizes: last windows are shorter
            here = sizes == size
            keys = self._window_keys(epoch, size, begin[here])
            places[here] = begin[here] + permute(in_window[here], size, keys)
        return places

    def _window_keys(self, epoch: int, size: int, begins: np.ndarray) -> np.ndarray:
        """The round keys, uint64 [rounds, n], of the windows that begin at these places."""
        keys = round_keys(f"{self._name(epoch)}/window", size)
        distinct, which = np.unique(begins, return_inverse=True)
        return mix(distinct.astype(np.uint64), keys[:, None])[:, which]

    def _epoch(self, epoch: int) -> _Epoch:
        table = self._epochs.get(epoch)
        if table is None:
            if len(self._epochs) >= _MOST_TABLES:
                self._epochs.clear()
            table = self._epochs[epoch] = self._sequence(epoch)
        return table

    def _sequence(self, epoch: int) -> _Epoch:
        lengths = np.asarray(self.shard_lengths, dtype=np.int64)
        keys = round_keys(f"{self._name(epoch)}/shards", len(lengths))
        shards = permute(np.arange(len(lengths)), len(lengths), keys[:, None])
        ends = np.cumsum(lengths[shards])
        row_ends = np.cumsum(lengths)
        return _Epoch(ends, row_ends[shards] - ends)

    def _name(self, epoch: int) -> str:
        return f"WindowedOrder/1/{self.key_hash}/{self.seed}/{epoch}"
