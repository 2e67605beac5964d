"""Counts, sizes, channel statistics and labels of a shard set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.info import DatasetInfo
from shards.reader import Split, open_set

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SplitStats:
    """One split. `mean` and `variance` are of R, G, B over all pixels, in grey levels 0..255.

    `sizes` counts images by (width, height); `labels` by label, -1 for none.
    """

    samples: int
    bytes: int
    pixels: int
    mean: tuple[float, float, float]
    variance: tuple[float, float, float]
    sizes: dict[tuple[int, int], int]
    labels: dict[int, int]


def stats(
    path: str | Path, progress: Progress | None = None
) -> tuple[DatasetInfo, dict[str, SplitStats]]:
    """Decode the whole set at `path` and sum it up; `ShardError` for a corrupt sample."""
    shard_set = open_set(path)
    by_split = {}
    for name, split in shard_set.info.splits.items():
        size = sum(shard.bytes for shard in split.shards)
        by_split[name] = _split_stats(shard_set.split(name), size, progress)
    return shard_set.info, by_split


def _split_stats(split: Split, size: int, progress: Progress | None) -> SplitStats:
    levels = np.arange(256, dtype=np.int64)
    histogram = np.zeros((3, 256), dtype=np.int64)  # exact: sums of integers, no rounding
    sizes: Counter[tuple[int, int]] = Counter()
    labels: Counter[int] = Counter()
    for row in range(len(split)):
        image = split.image(row)
        for channel in range(3):
            histogram[channel] += np.bincount(image[..., channel].ravel(), minlength=256)
        sizes[image.shape[1], image.shape[0]] += 1
        label = split.label(row)
        labels[-1 if label is None else label] += 1
        if progress is not None:
            progress(split.name, row + 1, len(split))
    pixels = int(histogram[0].sum())
    mean = histogram @ levels / max(pixels, 1)
    variance = (histogram * (levels - mean[:, None]) ** 2).sum(axis=1) / max(pixels, 1)
    return SplitStats(
        samples=len(split),
        bytes=size,
        pixels=pixels,
        mean=(mean[0], mean[1], mean[2]),
        variance=(variance[0], variance[1], variance[2]),
        sizes=dict(sorted(sizes.items())),
        labels=dict(sorted(labels.items())),
    )
