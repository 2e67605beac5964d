"""The order of training: a pure function from stream positions to rows.

The training stream is the endless concatenation of epochs; each epoch is a keyed
pseudo-random permutation of all the rows of a split. Global batch k is the positions
[kB, (k+1)B) of the stream. A batch may straddle two epochs, so nothing is dropped or
repeated and every batch is full. Rank r of W takes the positions kB + r, kB + r + W, ...,
so the shares differ by at most one when W does not divide B. A resume needs one integer.

`EpochOrder` mixes the whole split; `shards.reading.windowed` walks the shards, for sets that are
fetched from far away; `shards.reading.mixture` weaves the streams of several sets into one.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from shards.errors import ShardError

# Twelve rounds mix large domains far beyond what a test can see; the few cells of a tiny
# domain give each round little freedom, so they get more.
_ROUNDS, _ROUNDS_TINY, _TINY = 12, 32, 4096
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


class Order(Protocol):
    """What batches ask of an order."""

    @property
    def length(self) -> int:
        """Rows of the split that it is for."""

    @property
    def seed(self) -> int:
        """The seed of the run; it keys the draws of transforms too."""

    @property
    def look_ahead(self) -> int:
        """Stream positions in advance of their reading that a remote split should hear of."""

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Rows (int64) at stream positions (int64, any shape, any order)."""


@dataclass(frozen=True)
class EpochOrder:
    """Endless stream of epochs, each a permutation of `range(length)`, with random access.

    O(1) time and memory for each position.

    Args:
        key_hash: identifies the data, `Split.key_hash`; other data, another order.
        seed: the seed of the run.
        length: number of rows in the split, at least 1.
    """

    key_hash: str
    seed: int
    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ShardError(f"an order needs at least one row, not {self.length}")

    @property
    def look_ahead(self) -> int:
        """Every sample may need a shard of its own, so only enough to keep fetches overlapping."""
        return 256

    def epoch(self, position: int) -> int:
        """The epoch that holds a stream position."""
        return int(position) // self.length

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Rows at stream positions (int64, any shape, any order); raises on negative ones."""
        positions = checked_positions(positions)
        if positions.size == 0:
            return positions.copy()
        epochs, offsets = np.divmod(positions.ravel(), self.length)
        return permute(offsets, self.length, self._keys(epochs)).reshape(positions.shape)

    def _keys(self, epochs: np.ndarray) -> np.ndarray:
        """Round keys, uint64 [rounds, n], or [rounds, 1] when all positions share an epoch."""
        if epochs.min() == epochs.max():
            return self._epoch_keys(int(epochs[0]))[:, None]
        distinct, which = np.unique(epochs, return_inverse=True)
        return np.stack([self._epoch_keys(int(e)) for e in distinct], axis=1)[:, which]

    def _epoch_keys(self, epoch: int) -> np.ndarray:
        return round_keys(f"EpochOrder/1/{self.key_hash}/{self.seed}/{epoch}", self.length)


def checked_positions(positions: np.ndarray) -> np.ndarray:
    """Stream positions as int64; `ShardError` when one is negative."""
    positions = np.asarray(positions, dtype=np.int64)
    if positions.size and positions.min() < 0:
        raise ShardError(f"stream positions start at 0, not {positions.min()}")
    return positions


def permute(x: np.ndarray, length: int, keys: np.ndarray) -> np.ndarray:
    """A keyed pseudo-random permutation of `range(length)`, applied to x elementwise.

    A generalised Feistel network over Z_a x Z_b with cycle walking (Black and Rogaway,
    "Ciphers with arbitrary finite domains", 2002). The rounds are integer arithmetic only, so the
    result is the same on every machine and with every version of numpy.

    Args:
        x: int64 [n] in [0, length).
        length: size of the domain, at least 1.
        keys: uint64 [rounds, 1] for one permutation, [rounds, n] for a key of its own for each
            element; see `round_keys`.

    Returns:
        int64 [n] in [0, length).
    """
    a, b = _domain(length)
    y = _feistel(x.astype(np.uint64), keys, a, b)
    outside = np.flatnonzero(y >= length)
    while outside.size:  # cycle walking: step on until the cell is in the domain
        own = keys if keys.shape[1] == 1 else keys[:, outside]
        y[outside] = _feistel(y[outside], own, a, b)
        outside = outside[y[outside] >= length]
    return y.astype(np.int64)


@lru_cache(maxsize=4096)
def round_keys(name: str, length: int) -> np.ndarray:
    """Keys for `permute` over `range(length)`, uint64 [rounds], from a name that means this use."""
    rounds = _ROUNDS_TINY if length <= _TINY else _ROUNDS
    blocks = (
        hashlib.sha256(f"{name}/{block}".encode()).digest() for block in range(-(-rounds // 4))
    )
    keys = np.frombuffer(b"".join(blocks), dtype="<u8")[:rounds].astype(np.uint64)
    keys.flags.writeable = False  # the cache hands the same array to everyone
    return keys


def mix(x: np.ndarray, key: np.ndarray | np.uint64) -> np.ndarray:
    """The splitmix64 finaliser of x and key (wrapping uint64), its upper 63 bits.

    One bit is given up so that adding a coordinate cannot wrap around.
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
    """Sides (a, b) with a * b >= length, near its square root.

    b is even: with both sides odd each round is an even permutation, and half of all
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
