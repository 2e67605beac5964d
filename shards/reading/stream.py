"""Batches of a split: the endless training stream of a rank, and one pass for evaluation."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, islice
from typing import NamedTuple

import numpy as np

from shards.errors import ShardError
from shards.reading.mixture import MixedSplit
from shards.reading.order import Order
from shards.reading.reader import Split
from shards.reading.transforms import Draw, Transforms, View, dithered, draws, in_words

# The order is computed for many batches at once, since every call of numpy takes time.
_BATCHES_A_BLOCK = 32
# How many samples of a rank ahead of reading a remote split is told to fetch: the most in training,
# and the number in evaluation.
_MOST_LOOK_AHEAD, _EVALUATION_LOOK_AHEAD = 16_384, 2048


class Share(NamedTuple):
    """A rank's part of a global batch.

    `rows` and `positions` are those of the rank's samples. `like` is a row of the whole batch; the
    image of that row gives an empty share its shape.
    """

    rows: np.ndarray
    positions: np.ndarray
    like: int = 0


class Batch(NamedTuple):
    """One rank's share of a global batch, which has n samples.

    Attributes:
        images: The images, uint8 [n, H, W, 3] RGB, or float32 in [0, 1) when they are dithered.
        rows: The rows of the samples in the split, int64 [n].
        positions: The positions of the samples in the training stream, or their rows in an
            evaluation, int64 [n].
        labels: The labels, int64 [n]; -1 for a sample without one.
        maps: The maps that were asked for, by name, uint8 or uint16 [n, H, W].
    """

    images: np.ndarray
    rows: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    maps: dict[str, np.ndarray]


def training_batches(
    split: Split | MixedSplit,
    order: Order,
    batch_size: int,
    rank: int,
    world: int,
    start_position: int,
    threads: int = 1,
    ahead: int = 2,
    transforms: Transforms | None = None,
    maps: Sequence[str] = (),
) -> Generator[Batch, None, None]:
    """The endless stream of a rank's shares of global batches, from `start_position` on.

    Args:
        split: The split that holds the samples.
        order: The order, which maps stream positions to rows (see `shards.reading.order`); its seed
            keys the transforms.
        batch_size: The number of samples in a global batch, over all the ranks.
        rank: This rank, in [0, world).
        world: The number of ranks; it need not divide `batch_size`.
        start_position: The number of samples that all the ranks have consumed so far; the first
            batch holds the positions [start_position, start_position + batch_size).
        threads: The number of reader threads, which read and decode side by side.
        ahead: The number of batches that are read ahead of the consumer.
        transforms: The transforms of each image.
        maps: The names of the maps to read, such as "label".

    An error of a reader thread is raised here when its batch is due. Closing the iterator stops the
    threads. Raises `ShardError` for a corrupt sample, for images of different sizes, and for an
    image that is smaller than the crop.
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
    shares = _announced(
        split,
        _training_blocks(order, batch_size, rank, world, start_position),
        min(order.look_ahead // world, _MOST_LOOK_AHEAD),
    )
    return _read_ahead(_Reader(split, transforms, order.seed, tuple(maps)), shares, threads, ahead)


def evaluation_batches(
    split: Split | MixedSplit,
    batch_size: int,
    rank: int,
    world: int,
    limit: int | None = None,
    transforms: Transforms | None = None,
    maps: Sequence[str] = (),
) -> Iterator[Batch]:
    """Batches of every row once, in order, or of the first `limit` rows.

    The last global batch may be partial. All the ranks get the same number of batches; a rank's
    share of the last batch may be empty. Nothing is random: of the transforms, only the resize and
    the crop are applied, and the crop is taken at the centre.
    """
    _check(batch_size, rank, world)
    length = len(split) if limit is None else min(limit, len(split))
    batches = (
        np.arange(begin, min(begin + batch_size, length)) for begin in range(0, length, batch_size)
    )
    return chosen_batches(split, batches, rank, world, transforms, maps)


def chosen_batches(
    split: Split | MixedSplit,
    batches: Iterable[np.ndarray],
    rank: int,
    world: int,
    transforms: Transforms | None = None,
    maps: Sequence[str] = (),
) -> Iterator[Batch]:
    """A rank's shares of given global batches, each int64 rows; see `evaluation_batches`.

    The arrays of an empty share have the shape of an image of its batch, as those of other shares.
    """
    _check(1, rank, world)
    blocks = _evaluation_blocks(batches, rank, world)
    reader = _Reader(split, transforms, None, tuple(maps))
    shares = _announced(split, blocks, _EVALUATION_LOOK_AHEAD // world)
    return (reader.batch(*share) for share in shares)


def read_batch(
    split: Split | MixedSplit,
    rows: np.ndarray,
    transforms: Transforms | None = None,
    maps: Sequence[str] = (),
) -> Batch:
    """Some rows (int64 [n]) as one batch, with the transforms as an evaluation applies them."""
    return _Reader(split, transforms, None, tuple(maps)).batch(rows, rows)


def _check(batch_size: int, rank: int, world: int) -> None:
    if batch_size < 1:
        raise ShardError(f"a batch needs at least one sample, not {batch_size}")
    if not 0 <= rank < world:
        raise ShardError(f"rank {rank} is not in [0, {world})")


def _training_blocks(
    order: Order, batch_size: int, rank: int, world: int, start: int
) -> Iterator[list[Share]]:
    """This rank's shares of the global batches, many batches at a time."""
    share = np.arange(rank, batch_size, world, dtype=np.int64)
    block = np.arange(_BATCHES_A_BLOCK, dtype=np.int64)[:, None] * batch_size + share
    for first in count(start, _BATCHES_A_BLOCK * batch_size):
        positions = block + first
        yield list(map(Share, order.rows(positions), positions))


def _evaluation_blocks(
    batches: Iterable[np.ndarray], rank: int, world: int
) -> Iterator[list[Share]]:
    rest = iter(batches)
    while block := list(islice(rest, _BATCHES_A_BLOCK)):
        yield [Share(rows[rank::world], rows[rank::world], int(rows[0])) for rows in block]


def _announced(
    split: Split | MixedSplit, blocks: Iterable[list[Share]], samples: int
) -> Iterator[Share]:
    """The shares of the blocks; the split is told to fetch each `samples` or more ahead of it."""
    waiting: deque[tuple[int, list[Share]]] = deque()
    held = 0
    for block in blocks:
        split.fetch_soon(np.concatenate([share.rows for share in block]))
        size = sum(len(share.rows) or 1 for share in block)
        waiting.append((size, block))
        held += size
        while waiting and held - waiting[0][0] >= samples:
            size, first = waiting.popleft()
            held -= size
            yield from first
    for _, block in waiting:
        yield from block


def _read_ahead(
    reader: _Reader, shares: Iterator[Share], threads: int, ahead: int
) -> Generator[Batch, None, None]:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="shards-reader")
    waiting: deque[Future[Batch]] = deque()
    try:
        while True:
            while len(waiting) < max(ahead + 1, threads):
                waiting.append(pool.submit(reader.batch, *next(shares)))
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Memory:
    """Arrays for batches, which reuse the memory of earlier batches that nobody holds any more.

    The kernel would clear fresh memory page by page, which costs several percent of the time that
    small JPEG files take to decode.
    """

    def __init__(self) -> None:
        self._free: deque[np.ndarray] = deque(maxlen=8)

    def empty(self, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        try:
            block = self._free.pop()  # the last one may still be in the processor's cache
        except IndexError:
            block = np.empty(shape, dtype)
        if block.shape != shape or block.dtype != dtype:
            block = np.empty(shape, dtype)
        return np.asarray(_Lent(block, self._free))


class _Lent:
    """The base of all views of an array, which gives the memory back after the last view."""

    def __init__(self, block: np.ndarray, free: deque[np.ndarray]) -> None:
        self.__array_interface__ = block.__array_interface__
        self._block, self._free = block, free

    def __del__(self) -> None:
        self._free.append(self._block)


@dataclass(frozen=True)
class _Reader:
    """Reads batches; `seed` keys the transforms, and without one nothing is random."""

    split: Split | MixedSplit
    transforms: Transforms | None
    seed: int | None
    maps: tuple[str, ...]
    memory: _Memory = field(default_factory=_Memory)

    def batch(self, rows: np.ndarray, positions: np.ndarray, like: int = 0) -> Batch:
        if len(rows) == 0:
            # An empty share has the shapes and types of the others, so that they can be gathered.
            one = self.batch(np.array([like]), np.zeros(1, dtype=np.int64))
            maps = {name: labels[:0] for name, labels in one.maps.items()}
            return Batch(one.images[:0], rows, positions, one.labels[:0], maps)
        if self.transforms is None:
            images, views = self._plain(rows)
        else:
            images, views = self._transformed(self.transforms, rows, positions)
        return Batch(images, rows, positions, self.split.labels(rows), self._maps(rows, views))

    def _plain(self, rows: np.ndarray) -> tuple[np.ndarray, list[View]]:
        """The images without transforms, decoded right into the batch."""
        read = self.split.image
        first = read(int(rows[0]))
        images = self.memory.empty((len(rows), *first.shape), np.uint8)
        images[0] = first
        for row, target in zip(rows[1:].tolist(), images[1:], strict=True):
            image = read(row, target)
            if image is not target:
                raise self._mixed_sizes(int(rows[0]), first.shape, row, image.shape)
        size = first.shape[0], first.shape[1]
        return images, [View(size, size, (0, 0), size, mirrored=False)] * len(rows)

    def _transformed(
        self, transforms: Transforms, rows: np.ndarray, positions: np.ndarray
    ) -> tuple[np.ndarray, list[View]]:
        own = [None] * len(rows) if self.seed is None else draws(self.seed, positions)
        images, views = np.empty(0), list[View]()
        for i, (row, draw) in enumerate(zip(rows.tolist(), own, strict=True)):
            pixels = self.split.image(row)
            view = self._view(transforms, row, pixels, draw)
            image = view.image(pixels)
            if i == 0:
                dtype = np.float32 if transforms.dither and self.seed is not None else np.uint8
                images = self.memory.empty((len(rows), *image.shape), dtype)
            if image.shape != images.shape[1:]:
                raise self._mixed_sizes(int(rows[0]), images.shape[1:], row, image.shape)
            if transforms.dither and self.seed is not None:
                dithered(image, self.seed, int(positions[i]), images[i])
            else:
                images[i] = image
            views.append(view)
        return images, views

    def _view(
        self, transforms: Transforms, row: int, pixels: np.ndarray, draw: Draw | None
    ) -> View:
        try:
            return transforms.view((pixels.shape[0], pixels.shape[1]), draw)
        except ValueError as error:
            key = self.split.key(row)
            raise ShardError(f"{self.split.where}: the image {key!r} {error}") from None

    def _maps(self, rows: np.ndarray, views: list[View]) -> dict[str, np.ndarray]:
        """The maps that were asked for, each transformed like its image."""
        if not self.maps:
            return {}
        seen: dict[str, list[np.ndarray]] = {name: [] for name in self.maps}
        for row, view in zip(rows.tolist(), views, strict=True):
            for name, labels in self.split.maps(row, self.maps).items():
                if labels.shape != view.source:
                    raise ShardError(
                        f"{self.split.where}: the map {name!r} of {self.split.key(row)!r} is "
                        f"{in_words(labels.shape)} and its image {in_words(view.source)}: build "
                        "the set anew with maps of the size of their images"
                    )
                seen[name].append(view.map(labels))
        return {name: np.stack(labels) for name, labels in seen.items()}

    def _mixed_sizes(
        self, row_a: int, shape_a: tuple[int, ...], row_b: int, shape_b: tuple[int, ...]
    ) -> ShardError:
        key = self.split.key
        where = self.split.where
        return ShardError(
            f"{where}: images of different sizes cannot share a batch: {key(row_a)!r} is "
            f"{shape_a[1]}x{shape_a[0]} and {key(row_b)!r} is {shape_b[1]}x{shape_b[0]} (width x "
            "height): build the set with --size, crop or resize them, or use a batch size of 1"
        )
