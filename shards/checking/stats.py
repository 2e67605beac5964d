"""Counts, sizes, channel statistics, labels and label maps of a shard set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from shards.checking.whole_set import batches, open_index, processes_for
from shards.errors import ShardError
from shards.index import whole
from shards.info import DatasetInfo
from shards.pool import in_order
from shards.reading.reader import ShardSet, Split, open_set

Progress = Callable[[str, int, int], None]

PERCENTILES = (0, 5, 50, 95, 100)
_ROWS_A_TASK = 1024
_LEVELS = 256  # the number of levels of a channel
_VALUES = 1 << 16  # the number of values that a pixel of a map can have


@dataclass(frozen=True)
class SplitStats:
    """The statistics of one split.

    Attributes:
        samples: The number of samples.
        bytes: The total size of the tars in bytes.
        image_bytes: The percentiles of the sizes of the stored images in bytes; empty without
            images.
        pixels: The number of pixels of all images.
        mean: The means of R, G and B over all pixels, in grey levels 0..255.
        variance: The variances of R, G and B over all pixels; the sums are divided by the number of
            pixels.
        sizes: The number of images of each (width, height).
        labels: The number of samples of each label; the label -1 stands for samples without one.
        maps: For each map, the number of pixels of each value.
    """

    samples: int
    bytes: int
    image_bytes: dict[int, int]
    pixels: int
    mean: tuple[float, float, float]
    variance: tuple[float, float, float]
    sizes: dict[tuple[int, int], int]
    labels: dict[int, int]
    maps: dict[str, dict[int, int]]

    def as_json(self) -> dict[str, Any]:
        """The statistics in the types of JSON.

        Keys become text: sizes "WIDTHxHEIGHT", and other numbers their digits.
        """
        return {
            "samples": self.samples,
            "bytes": self.bytes,
            "image_bytes": _words(self.image_bytes),
            "pixels": self.pixels,
            "mean": list(self.mean),
            "variance": list(self.variance),
            "sizes": {f"{width}x{height}": n for (width, height), n in self.sizes.items()},
            "labels": _words(self.labels),
            "maps": {name: _words(counts) for name, counts in self.maps.items()},
        }


def stats(
    location: str | Path, processes: int | None = None, progress: Progress | None = None
) -> tuple[DatasetInfo, dict[str, SplitStats]]:
    """Decode the whole set and count it, in `processes` (by default as many as pay off).

    All sums are of integers, so the results are exact and do not depend on the number of processes.
    `progress` is called with ("samples", samples done, samples in all). Raises `ShardError` when
    there is no set, and for a corrupt sample.
    """
    shard_set = open_set(location)
    image_bytes = _image_bytes(shard_set)
    sums = _sum_up(shard_set, processes_for(shard_set.info, processes), progress)
    return shard_set.info, {
        name: _finished(sums[name], sum(shard.bytes for shard in part.shards), image_bytes[name])
        for name, part in shard_set.info.splits.items()
    }


class _Rows(NamedTuple):
    location: str | Path
    index_hash: str
    split: str
    start: int
    stop: int


@dataclass
class _Sums:
    """The counts over some rows; the counts of two groups of rows can be added.

    `levels` counts the pixels of each grey level, int64 [3, 256]; `maps` counts the pixels of each
    value of each map, int64 [65536].
    """

    levels: np.ndarray = field(default_factory=lambda: np.zeros((3, _LEVELS), dtype=np.int64))
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    labels: Counter[int] = field(default_factory=Counter)
    maps: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, other: _Sums) -> None:
        self.levels += other.levels
        self.sizes += other.sizes
        self.labels += other.labels
        for name, counts in other.maps.items():
            self.maps[name] = self.maps.get(name, 0) + counts


def _sum_up(shard_set: ShardSet, workers: int, progress: Progress | None) -> dict[str, _Sums]:
    sums = {name: _Sums() for name in shard_set.splits}
    tasks = _tasks(shard_set)

    def show(counts: Sequence[int] = ()) -> None:
        if progress is not None:
            done = sum(part.labels.total() for part in sums.values()) + sum(counts)
            progress("samples", done, sum(shard_set.splits.values()))

    with closing(in_order(_count, tasks, workers, show)) as parts:
        for task, part in zip(tasks, parts, strict=True):
            sums[task.split].add(part)
            show()
    return sums


def _tasks(shard_set: ShardSet) -> list[_Rows]:
    """The tasks, each of rows of one shard, so that processes seldom need the same remote shard."""
    tasks = []
    for name, split in shard_set.info.splits.items():
        start = 0
        for shard in split.shards:
            for begin in range(start, start + shard.samples, _ROWS_A_TASK):
                stop = min(begin + _ROWS_A_TASK, start + shard.samples)
                tasks.append(_Rows(shard_set.path, shard_set.index_hash, name, begin, stop))
            start += shard.samples
    return tasks


@lru_cache(maxsize=2)  # a worker passes from one split to the next
def _split(location: str | Path, index_hash: str, name: str) -> Split:
    shard_set = open_set(location)
    if shard_set.index_hash != index_hash:
        raise ShardError(f"{location} has become another set while it was read")
    return shard_set.split(name)


def _count(rows: _Rows, report: Callable[[int], None]) -> _Sums:
    split = _split(rows.location, rows.index_hash, rows.split)
    sums = _Sums(labels=Counter(split.labels(np.arange(rows.start, rows.stop)).tolist()))
    for row in range(rows.start, rows.stop):
        sample = split.read(row)
        sums.sizes[sample.image.shape[1], sample.image.shape[0]] += 1
        sums.levels += np.reshape(Image.fromarray(sample.image).histogram(), (3, _LEVELS))
        for name, values in sample.maps.items():
            counts = sums.maps.setdefault(name, np.zeros(_VALUES, dtype=np.int64))
            found = np.bincount(values.ravel())
            counts[: len(found)] += found
        report(row + 1 - rows.start)
    return sums


def _image_bytes(shard_set: ShardSet) -> dict[str, np.ndarray]:
    """The sizes of the images of each split in bytes, int64 in ascending order."""
    parts = {name: [np.empty(0, dtype=np.int64)] for name in shard_set.splits}
    index = open_index(shard_set.path, shard_set.info)
    for table in batches(index, ["split", "image_size"]):
        for name, sizes in parts.items():
            sizes.append(
                whole(table.filter(pc.equal(table["split"], name))["image_size"]).to_numpy()
            )
    return {name: np.sort(np.concatenate(sizes)) for name, sizes in parts.items()}


def _finished(sums: _Sums, size: int, image_bytes: np.ndarray) -> SplitStats:
    pixels = int(sums.levels[0].sum())
    moments = [_moments(counts) for counts in sums.levels.tolist()]
    return SplitStats(
        samples=sums.labels.total(),
        bytes=size,
        image_bytes=_percentiles(image_bytes),
        pixels=pixels,
        mean=(moments[0][0], moments[1][0], moments[2][0]),
        variance=(moments[0][1], moments[1][1], moments[2][1]),
        sizes=dict(sorted(sums.sizes.items())),
        labels=dict(sorted(sums.labels.items())),
        maps={name: _counted(counts) for name, counts in sums.maps.items()},
    )


def _moments(counts: list[int]) -> tuple[float, float]:
    """The mean and variance of levels with these counts; only the last divisions are rounded."""
    n = max(sum(counts), 1)
    first = sum(level * count for level, count in enumerate(counts))
    second = sum(level * level * count for level, count in enumerate(counts))
    return first / n, (n * second - first * first) / (n * n)


def _percentiles(ascending: np.ndarray) -> dict[int, int]:
    """The least value that at least p percent of all do not exceed, for each percentile p."""
    if not len(ascending):
        return {}
    return {p: int(ascending[max(0, -(-p * len(ascending) // 100) - 1)]) for p in PERCENTILES}


def _counted(counts: np.ndarray) -> dict[int, int]:
    values = np.flatnonzero(counts)
    return dict(zip(values.tolist(), counts[values].tolist(), strict=True))


def _words(counts: dict[int, int]) -> dict[str, int]:
    return {str(value): count for value, count in counts.items()}
