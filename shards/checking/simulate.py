"""What reading a split costs, and how well its order shuffles, on machines that are not here.

The order is not modelled: the real order classes are asked for every position. What is modelled is
the shard cache of each node, which holds whole shards and evicts the least recently used one first,
and the reading of the ranks, which are assumed to advance in step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shards.errors import ShardError
from shards.info import SplitInfo
from shards.reading.order import Order

_CHUNK = 1 << 18  # positions asked of an order at once: its keys take 100 bytes for each


@dataclass(frozen=True, eq=False)
class Layout:
    """The numbers of samples and of bytes of a split's shards, in the order of the rows.

    Both arrays are int64 [shards].
    """

    lengths: np.ndarray
    sizes: np.ndarray


@dataclass(frozen=True)
class Readers:
    """The processes that read: `world` ranks on `nodes` nodes; neighbouring ranks share a node.

    `batch_size` is the number of samples in a global batch; `cache_bytes` is the room for shards on
    each node.
    """

    world: int
    nodes: int
    batch_size: int
    cache_bytes: int


@dataclass(frozen=True)
class NodeTraffic:
    """What one node fetches.

    Attributes:
        requests: The number of fetches of a shard.
        bytes: The number of bytes fetched.
        repeated: The number of fetches of a shard that the node had fetched before and evicted.
        needed_bytes: The largest total size of the shards that are between their first and their
            last use in an epoch at the same time. With a smaller cache, some shards are fetched
            more than once. Fetching ahead of the reading may take as much room again.
        share: The bytes of the shards that the node touches in an epoch, as a fraction of all
            bytes; the mean over the epochs.
    """

    requests: int
    bytes: int
    repeated: int
    needed_bytes: int
    share: float


@dataclass(frozen=True)
class Shuffle:
    """How close an order is to a uniform shuffle, judged by its first two epochs.

    Attributes:
        distinct_shards: The mean number of different shards in a global batch, relative to its
            expectation when the batch is drawn uniformly without replacement; 1 is best.
        rank_correlation: Spearman's rank correlation of the place in the stream with the place in
            storage; 0 is best, and chance gives about 1 / sqrt(samples).
        pair_repeat: The probability that two samples which share a batch in one epoch also share
            one in the next, relative to that of any two samples; 1 is best. It is also 1 when the
            batches have no pairs.
    """

    distinct_shards: float
    rank_correlation: float
    pair_repeat: float


@dataclass(frozen=True)
class Simulation:
    """The traffic of each node over `positions` samples of the stream, and the shuffle quality."""

    positions: int
    nodes: tuple[NodeTraffic, ...]
    shuffle: Shuffle


def layout_of(split: SplitInfo) -> Layout:
    """The layout of a split that exists, without its empty shards, which are never read."""
    shards = [shard for shard in split.shards if shard.samples]
    return Layout(
        np.array([shard.samples for shard in shards], dtype=np.int64),
        np.array([shard.bytes for shard in shards], dtype=np.int64),
    )


def even_layout(samples: int, shard_size: int, sample_bytes: int) -> Layout:
    """The layout of a made-up split of equal samples; the last shard may have fewer than others."""
    if min(samples, shard_size, sample_bytes) < 1:
        raise ShardError(
            f"a made-up split has at least 1 sample of 1 byte and 1 sample a shard, not {samples} "
            f"of {sample_bytes} bytes and {shard_size} a shard"
        )
    begins = np.arange(0, samples, shard_size, dtype=np.int64)
    lengths = np.minimum(shard_size, samples - begins)
    return Layout(lengths, lengths * sample_bytes)


def simulate(layout: Layout, order: Order, readers: Readers, positions: int) -> Simulation:
    """Simulate reading the first `positions` samples of the stream.

    Raises `ShardError` when the order is not for this split and when the readers are impossible.
    """
    if order.length != layout.lengths.sum():
        raise ShardError(
            f"the order is for {order.length} rows but the shards have {layout.lengths.sum()}"
        )
    if not 1 <= readers.nodes <= readers.world or readers.batch_size < 1 or positions < 1:
        raise ShardError(
            f"{readers.world} ranks on {readers.nodes} nodes, a batch of {readers.batch_size} and "
            f"{positions} samples to read: each must be at least 1, and no node without a rank"
        )
    if readers.cache_bytes < layout.sizes.max():
        raise ShardError(
            f"a cache of {readers.cache_bytes} bytes cannot hold the largest shard, which has "
            f"{layout.sizes.max()} bytes"
        )
    return Simulation(
        positions,
        node_traffic(layout, order, readers, positions),
        shuffle_quality(layout, order, readers.batch_size),
    )


def node_traffic(
    layout: Layout, order: Order, readers: Readers, positions: int
) -> tuple[NodeTraffic, ...]:
    """What each node fetches while all of them read the first `positions` of the stream."""
    nodes = [_Node(layout.sizes, readers.cache_bytes) for _ in range(readers.nodes)]
    shard_of_row = np.repeat(np.arange(len(layout.lengths)), layout.lengths)
    for begin in range(0, positions, order.length):
        epoch = np.arange(begin, min(begin + order.length, positions))
        shards = shard_of_row[_rows(order, begin, len(epoch))]
        rank = epoch % readers.batch_size % readers.world
        node = rank * readers.nodes // readers.world
        for i, reader in enumerate(nodes):
            reader.read_epoch(shards[node == i])
    return tuple(node.traffic() for node in nodes)


def shuffle_quality(layout: Layout, order: Order, batch_size: int) -> Shuffle:
    """Compare the first two epochs of an order with uniform shuffles."""
    n = order.length
    first, second = _rows(order, 0, n), _rows(order, n, n)
    batch = min(batch_size, n)
    shard_of_row = np.repeat(np.arange(len(layout.lengths)), layout.lengths)
    found = _distinct_a_batch(shard_of_row[first], batch)
    correlation = np.corrcoef(np.arange(n), first)[0, 1] if n > 1 else 0.0
    return Shuffle(
        float(found / expected_distinct(layout.lengths, batch)),
        float(correlation),
        _pair_repeat(first, second, batch_size),
    )


def expected_distinct(lengths: np.ndarray, batch: int) -> float:
    """Expected number of different shards among `batch` samples drawn without replacement.

    A shard of l of the n samples is missed with probability C(n - l, batch) / C(n, batch).
    """
    from scipy.special import gammaln

    sizes, shards = np.unique(lengths, return_counts=True)
    n = int(lengths.sum())
    others = n - sizes
    left = np.maximum(others - batch, 0)
    log_missed = (
        gammaln(others + 1.0) - gammaln(left + 1.0) + gammaln(n - batch + 1.0) - gammaln(n + 1.0)
    )
    missed = np.where(others >= batch, np.exp(log_missed), 0.0)
    return float((shards * (1 - missed)).sum())


class _Node:
    """The cache of a node, and what the node has fetched so far."""

    def __init__(self, sizes: np.ndarray, cache_bytes: int) -> None:
        self._sizes, self._room = sizes, cache_bytes
        # The bytes of each cached shard; the shard that was used least recently comes first.
        self._cache: OrderedDict[int, int] = OrderedDict()
        self._seen = np.zeros(len(sizes), dtype=bool)
        self._requests = self._bytes = self._repeated = self._needed = 0
        self._shares: list[float] = []

    def read_epoch(self, shards: np.ndarray) -> None:
        """Read these shards one after the other."""
        turns = shards[np.flatnonzero(np.diff(shards, prepend=-1))]
        fetched = np.fromiter(self._fetched(turns.tolist()), dtype=np.int64)
        touched = np.unique(turns)
        self._requests += len(fetched)
        self._bytes += int(self._sizes[fetched].sum())
        self._repeated += len(fetched) - int((~self._seen[touched]).sum())
        self._seen[touched] = True
        self._needed = max(self._needed, _most_alive(turns, self._sizes))
        self._shares.append(float(self._sizes[touched].sum() / self._sizes.sum()))

    def _fetched(self, turns: list[int]) -> Iterator[int]:
        """The shards that were not in the cache when their turn came."""
        cache, room, sizes = self._cache, self._room, self._sizes.tolist()
        for shard in turns:
            if shard in cache:
                cache.move_to_end(shard)
                continue
            yield shard
            cache[shard] = sizes[shard]
            room -= sizes[shard]
            while room < 0:
                room += cache.popitem(last=False)[1]
        self._room = room

    def traffic(self) -> NodeTraffic:
        return NodeTraffic(
            self._requests,
            self._bytes,
            self._repeated,
            self._needed,
            float(np.mean(self._shares)),
        )


def _rows(order: Order, begin: int, count: int) -> np.ndarray:
    return np.concatenate(
        [
            order.rows(np.arange(first, min(first + _CHUNK, begin + count)))
            for first in range(begin, begin + count, _CHUNK)
        ]
    )


def _most_alive(turns: np.ndarray, sizes: np.ndarray) -> int:
    """The largest number of bytes of shards that are between their first and their last turn."""
    if not len(turns):
        return 0
    shards, first = np.unique(turns, return_index=True)
    last = len(turns) - 1 - np.unique(turns[::-1], return_index=True)[1]
    change = np.zeros(len(turns) + 1, dtype=np.int64)
    np.add.at(change, first, sizes[shards])
    np.subtract.at(change, last + 1, sizes[shards])
    return int(np.cumsum(change).max())


def _distinct_a_batch(shards: np.ndarray, batch: int) -> float:
    """The mean number of different shards in a batch, over the whole batches of an epoch."""
    batches = shards[: len(shards) // batch * batch].reshape(-1, batch)
    ordered = np.sort(batches, axis=1)
    return float(1 + np.count_nonzero(np.diff(ordered, axis=1)) / len(batches))


def _pair_repeat(first: np.ndarray, second: np.ndarray, batch_size: int) -> float:
    """The number of pairs that share a batch in both epochs, relative to independent shuffles."""
    n = len(first)
    batch_of = np.empty((2, n), dtype=np.int64)
    batch_of[0, first] = np.arange(n) // batch_size
    batch_of[1, second] = (n + np.arange(n)) // batch_size
    in_first, in_second = (_pairs(batches) for batches in batch_of)
    if in_first == 0 or in_second == 0:
        return 1.0
    both = _pairs(batch_of[0] * (2 * n // batch_size + 1) + batch_of[1])
    return both * (n * (n - 1) / 2) / (in_first * in_second)


def _pairs(groups: np.ndarray) -> int:
    """How many pairs of elements are in the same group."""
    sizes = np.unique(groups, return_counts=True)[1]
    return int((sizes * (sizes - 1) // 2).sum())
