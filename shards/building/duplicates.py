"""Find pictures that occur more than once, by the hashes of the images' bytes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa


class Duplicates(NamedTuple):
    """Pairs of rows that hold the same image, int64 [pairs, 2], the earlier row first.

    The two rows of a pair in `across` are in different splits, those of a pair in `within` are in
    the same split. n copies of an image make n - 1 pairs in all, of which as few as possible are
    across splits.
    """

    across: np.ndarray
    within: np.ndarray


def hash_pairs(hashes: pa.FixedSizeBinaryArray) -> np.ndarray:
    """The 16 bytes of each hash as two integers, uint64 [rows, 2]."""
    if len(hashes) == 0:
        return np.empty((0, 2), dtype=np.uint64)
    pairs = np.frombuffer(hashes.buffers()[1], dtype="<u8").reshape(-1, 2)
    return pairs[hashes.offset : hashes.offset + len(hashes)]


def find_duplicates(hashes: np.ndarray, splits: np.ndarray) -> Duplicates:
    """Find the pairs of rows whose `hashes`, uint64 [rows, 2], are equal.

    `splits`, integers [rows], are the splits of the rows.
    """
    order = np.lexsort((splits, hashes[:, 1], hashes[:, 0]))
    equal = _equals_next(hashes, order)
    pairs = np.sort(np.stack([order[:-1][equal], order[1:][equal]], axis=1), axis=1)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    across = splits[pairs[:, 0]] != splits[pairs[:, 1]]
    return Duplicates(pairs[across], pairs[~across])


def stands_alone(hashes: np.ndarray) -> np.ndarray:
    """Whether no other row has the same image, for each row, bool [rows].

    `hashes`, uint64 [rows, 2], are the hashes of the images.
    """
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))
    equal = _equals_next(hashes, order)
    alone = np.ones(len(hashes), dtype=bool)
    alone[order[:-1][equal]] = False
    alone[order[1:][equal]] = False
    return alone


def _equals_next(hashes: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Whether the next row in `order` has the same hash, for each row but the last, bool."""
    first, second = (hashes[order, half] for half in range(2))
    return (first[:-1] == first[1:]) & (second[:-1] == second[1:])
