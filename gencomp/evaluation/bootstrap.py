"""The percentile bootstrap over images (Efron, 1979) with a fixed seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

REPLICATES = 1000
LEVEL = 0.95


def resamples(items: int, seed: int, stream: int = 0) -> Iterator[np.ndarray]:
    """Draw `REPLICATES` resamples with replacement, each as item numbers, int64 [items].

    Args:
        items: the number of items that are drawn from.
        seed: the seed of the bootstrap.
        stream: the number of the stream; different streams are drawn independently.
    """
    numbers = np.random.default_rng([seed, stream])
    for _ in range(REPLICATES):
        yield numbers.integers(0, items, items)


def resampled_counts(items: int, seed: int, stream: int = 0) -> np.ndarray:
    """The number of times that each item is in each resample, float64 [REPLICATES, items]."""
    drawn = resamples(items, seed, stream)
    return np.stack([np.bincount(one, minlength=items) for one in drawn]).astype(np.float64)


def resampled_means(values_N: np.ndarray, seed: int, stream: int = 0) -> np.ndarray:
    """The mean of each resample, [REPLICATES]."""
    return np.array([values_N[drawn].mean() for drawn in resamples(len(values_N), seed, stream)])


def interval(replicates_R: np.ndarray) -> tuple[float, float]:
    """The interval that holds the central `LEVEL` of the replicates, leaving out any NaN."""
    tail = 50 * (1 - LEVEL)
    low, high = np.nanpercentile(replicates_R, [tail, 100 - tail])
    return float(low), float(high)
