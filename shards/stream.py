"""Batches of a split: the endless training stream of a rank, and one pass for evaluation."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import NamedTuple

import numpy as np

from shards.errors import ShardError
from shards.order import EpochOrder
from shards.reader import Split

_BATCHES_A_BLOCK = 32  # the order is computed for many batches at once: numpy calls cost


class Batch(NamedTuple):
    """One rank's share of a global batch, n samples.

    images: uint8 [n, H, W, 3] RGB; rows, positions and labels: int64 [n]. `positions` are
    places in the stream (training) or rows (evaluation); a label is -1 when there is none.
    """

    images: np.ndarray
    rows: np.ndarray
    positions: np.ndarray
    labels: np.ndarray


def training_batches(
    split: Split,
    order: EpochOrder,
    batch_size: int,
    rank: int,
    world: int,
    start_position: int,
    threads: int = 1,
    ahead: int = 2,
) -> Generator[Batch, None, None]:
    """The endless stream of a rank's shares of global batches, from `start_position` on.

    Args:
        split: where the samples are.
        order: maps stream positions to rows (see `shards.order`).
        batch_size: samples in a global batch, over all the ranks.
        rank: this rank, in [0, world).
        world: number of ranks; it need not divide `batch_size`.
        start_position: samples consumed by all the ranks so far; the first batch holds the
            positions [start_position, start_position + batch_size).
        threads: reader threads.
        ahead: batches read ahead of the consumer.

    An error of a reader thread is raised here, in its turn. Closing the iterator stops the
    threads. Raises `ShardError` for a corrupt sample and for images of different sizes.
    """
    _check(batch_size, rank, world)
    if order.length != len(split):
        raise ShardError(
            f"the order is for {order.length} rows but split {split.name!r} has {len(split)}"
        )
    if start_position < 0 or threads < 1 or ahead < 1:
        raise ShardError(
            f"start position {start_position} must be at least 0, threads {threads} and ahead "
            f"{ahead} at least 1"
        )
    return _read_ahead(
        split, _shares(order, batch_size, rank, world, start_position), threads, ahead
    )


def evaluation_batches(
    split: Split, batch_size: int, rank: int, world: int, limit: int | None = None
) -> Iterator[Batch]:
    """Every row once, in order, or the first `limit` rows; the last global batch is partial.

    All the ranks get the same number of batches; a rank's share of the last may be empty.
    """
    _check(batch_size, rank, world)
    length = len(split) if limit is None else min(limit, len(split))
    return (
        _read(split, rows, rows)
        for begin in range(0, length, batch_size)
        for rows in [np.arange(begin + rank, min(begin + batch_size, length), world)]
    )


def _check(batch_size: int, rank: int, world: int) -> None:
    if batch_size < 1:
        raise ShardError(f"a batch needs at least one sample, not {batch_size}")
    if not 0 <= rank < world:
        raise ShardError(f"rank {rank} is not in [0, {world})")


def _shares(
    order: EpochOrder, batch_size: int, rank: int, world: int, start: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows, positions) of this rank's share of one global batch after the other."""
    share = np.arange(rank, batch_size, world, dtype=np.int64)
    block = np.arange(_BATCHES_A_BLOCK, dtype=np.int64)[:, None] * batch_size + share
    for first in count(start, _BATCHES_A_BLOCK * batch_size):
        positions = block + first
        yield from zip(order.rows(positions), positions, strict=True)


def _read_ahead(
    split: Split, shares: Iterator[tuple[np.ndarray, np.ndarray]], threads: int, ahead: int
) -> Generator[Batch, None, None]:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="shards-reader")
    waiting: deque[Future[Batch]] = deque()
    try:
        while True:
            while len(waiting) < ahead + 1:
                waiting.append(pool.submit(_read, split, *next(shares)))
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read(split: Split, rows: np.ndarray, positions: np.ndarray) -> Batch:
    # An empty share has the shape of the others, for those who gather them.
    first = split.image(int(rows[0]) if len(rows) else 0)
    images = np.empty((len(rows), *first.shape), dtype=np.uint8)
    images[:1] = first
    for i, row in enumerate(rows[1:].tolist(), start=1):
        target = images[i]
        image = split.image(row, target)
        if image is not target:
            raise _mixed_sizes(split, int(rows[0]), first.shape, row, image.shape)
    return Batch(images, rows, positions, split.labels(rows))


def _mixed_sizes(
    split: Split, row_a: int, shape_a: tuple[int, ...], row_b: int, shape_b: tuple[int, ...]
) -> ShardError:
    return ShardError(
        f"{split.path}: images of different sizes cannot share a batch: {split.key(row_a)!r} is "
        f"{shape_a[1]}x{shape_a[0]} and {split.key(row_b)!r} is {shape_b[1]}x{shape_b[0]} "
        "(width x height): build the set with --size, or use a batch size of 1"
    )
