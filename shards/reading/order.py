"""The order of training: a pure function from stream positions to rows.

The training stream is the endless concatenation of epochs; each epoch is a keyed
pseudo-random permutation of all the rows of a split. With B samples in a batch, global batch k
holds the positions [kB, (k+1)B) of the stream. A batch may straddle two epochs, so nothing is
dropped or repeated and every batch is full. Rank r of W takes the positions kB + r, kB + r + W,
..., so the shares differ by at most one sample when W does not divide B. To resume, one integer is
enough.

`EpochOrder` mixes the whole split; `shards.reading.windowed` takes one shard after the other, for
sets that are fetched from far away; `shards.reading.mixture` interleaves the streams of several
sets.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from shards.errors import ShardError

# After twelve rounds on a large domain, no test can tell the permutation from a random one. The few
# cells of a tiny domain give each round little freedom, so a tiny domain gets more rounds.
_ROUNDS, _ROUNDS_TINY, _TINY = 12, 32, 4096
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


class Order(Protocol):
    """What making batches needs of an order."""

    @property
    def length(self) -> int:
        """The number of rows of the split that the order is for."""

    @property
    def seed(self) -> int:
        """The seed of the run, which also keys the random draws of the transforms."""

    @property
    def look_ahead(self) -> int:
        """How many stream positions ahead of reading a remote split should start to fetch."""

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """The rows (int64) at stream positions (int64, any shape, any order)."""


@dataclass(frozen=True)
class EpochOrder:
    """An endless stream of epochs, each a permutation of `range(length)`, with random access.

    A position takes O(1) time and memory.

    Args:
        key_hash: The hash that identifies the data, `Split.key_hash`; other data have another
            order.
        seed: The seed of the run.
        length: The number of rows in the split, at least 1.
    """

    key_hash: str
    seed: int
    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ShardError(f"an order needs at least one row, not {self.length}")

    @property
    def look_ahead(self) -> int:
        """Each sample may need another shard, so only enough positions to let fetches overlap."""
        return 256

    def epoch(self, position: int) -> int:
        """The epoch that holds a stream position."""
        return int(position) // self.length

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """The rows at stream positions (int64, any shape, any order).

        Raises `ShardError` when a position is negative.
        """
        positions = checked_positions(positions)
        if positions.size == 0:
            return positions.copy()
        epochs, offsets = np.divmod(positions.ravel(), self.length)
        return permute(offsets, self.length, self._keys(epochs)).reshape(positions.shape)

    def _keys(self, epochs: np.ndarray) -> np.ndarray:
        """The round keys, uint64 [rounds, n]; [rounds, 1] when all positions share an epoch."""
        if epochs.min() == epochs.max():
            return self._epoch_keys(int(epochs[0]))[:, None]
        distinct, which = np.unique(epochs, return_inverse=True)
        return np.stack([self._epoch_keys(int(e)) for e in distinct], axis=1)[:, which]

    def _epoch_keys(self, epoch: int) -> np.ndarray:
        return round_keys(f"EpochOrder/1/{self.key_hash}/{self.seed}/{epoch}", self.length)


def checked_positions(positions: np.ndarray) -> np.ndarray:
    """Stream positions as int64; raises `ShardError` when a position is negative."""
    positions = np.asarray(positions, dtype=np.int64)
    if positions.size and positions.min() < 0:
        raise ShardError(f"stream positions start at 0, not {positions.min()}")
    return positions


def permute(x: np.ndarray, length: int, keys: np.ndarray) -> np.ndarray:
    """Apply a keyed pseudo-random permutation of `range(length)` to the elements of x.

    It is a generalised Feistel network over Z_a x Z_b with cycle walking (Black and Rogaway,
    "Ciphers with arbitrary finite domains", 2002). The rounds are integer arithmetic only, so the
    result is the same on every machine and with every version of numpy.

    Args:
        x: The elements, int64 [n] in [0, length).
        length: The size of the domain, at least 1.
        keys: The round keys: uint64 [rounds, 1] for one permutation, or [rounds, n] for a key of
            its own for each element; see `round_keys`.

    Returns:
        The permuted elements, int64 [n] in [0, length).
    """
    a, b = _domain(length)
    y = _feistel(x.astype(np.uint64), keys, a, b)
    outside = np.flatnonzero(y >= length)
    while outside.size:  # cycle walking: apply the network until the cell is in the domain
        own = keys if keys.shape[1] == 1 else keys[:, outside]
        y[outside] = _feistel(y[outside], own, a, b)
        outside = outside[y[outside] >= length]
    return y.astype(np.int64)


@lru_cache(maxsize=4096)
def round_keys(name: str, length: int) -> np.ndarray:
    """Keys for `permute` over `range(length)`, uint64 [rounds], made from a name of their use."""
    rounds = _ROUNDS_TINY if length <= _TINY else _ROUNDS
    blocks = (
        hashlib.sha256(f"{name}/{block}".encode()).digest() for block in range(-(-rounds // 4))
    )
    keys = np.frombuffer(b"".join(blocks), dtype="<u8")[:rounds].astype(np.uint64)
    keys.flags.writeable = False  # the cache hands the same array to everyone
    return keys


def mix(x: np.ndarray, key: np.ndarray | np.uint64) -> np.ndarray:
    """The upper 63 bits of the splitmix64 finaliser of x and key (uint64 that wraps around).

    One bit is given up so that adding a coordinate to the result cannot wrap around.
    """
    z = x * _GOLDEN + key
    z ^= z >> np.uint64(30)
    z *= _MIX_1
    z ^= z >> np.uint64(27)
    z *= _MIX_2
    z ^= z >> np.uint64(31)
    z >>= np.uint64(1)
    return z


def _domain(length: int) -> tuple[int, int]:
    """Two sides (a, b) with a * b >= length, both near the square root of the length.

    b is even: if both sides were odd, each round would be an even permutation, and half of all
    orders could never appear.
    """
    a = math.isqrt(length - 1) + 1
    b = -(-length // a)
    return a, b + b % 2


def _feistel(x: np.ndarray, keys: np.ndarray, a: int, b: int) -> np.ndarray:
    """One pass of the network: a keyed permutation of range(a * b), elementwise on uint64."""
    size_a, size_b = np.uint64(a), np.uint64(b)
    left, right = np.divmod(x, size_b)
    for i, key in enumerate(keys):
        if i % 2 == 0:
            left = (left + mix(right, key)) % size_a
        else:
            right = (right + mix(left, key)) % size_b
    return left * size_b + right
