"""What reading needs from the index of a set, which Arrow reads."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shards.errors import ShardError
from shards.index import FILE_NAME, IndexReader, map_index, numbers, whole
from shards.info import DatasetInfo, SplitInfo
from shards.reading.files import is_uri, place_of
from shards.remote.stores import store

_READ = [
    "shard", "key", "offset", "span", "check", "image_offset", "image_size", "label",
]  # fmt: skip
# uint64 is not among these types: numpy turns uint64 joined with other integers into floats.
_TYPES = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64)

# Each array comes in pieces, one after the other: all keys at once would need the memory twice.
Arrays = Iterable[tuple[str, Iterable[np.ndarray]]]


def open_index(path: str | Path, info: DatasetInfo) -> IndexReader:
    """The index of the set in a directory or at a URI."""
    if not is_uri(path):
        file = Path(path) / FILE_NAME
        return IndexReader(map_index(file), str(file), info.index_bytes_hash)
    base = store(path)
    where = str(place_of(base.uri, FILE_NAME))
    return IndexReader(base.read(FILE_NAME), where, info.index_bytes_hash)


def image_sizes(index: IndexReader, split: str) -> np.ndarray:
    """The (height, width) of all images of a split in pixels, int64 [n, 2]."""
    table = index.table(["height", "width"], split)
    return np.stack([numbers(whole(table[name])) for name in table.column_names], 1).astype(
        np.int64
    )


def from_index(index: IndexReader, info: DatasetInfo, split: str) -> Arrays:
    """The arrays of `Columns`, from one pass over the index, which is never whole in memory.

    Raises `ShardError` when the index and `dataset.json` disagree.
    """
    numbers: dict[str, list[np.ndarray]] = {}
    runs: list[tuple[str, int]] = []

    def key_bytes() -> Iterator[np.ndarray]:
        for table in index.tables(_READ + (["members"] if info.maps else []), split):
            runs.extend(_runs(whole(table["shard"])))
            keys, ends = _keys(whole(table["key"]))
            for name, values in _numbers(table, ends, info.maps, split):
                numbers.setdefault(name, []).append(_narrow(values))
            yield keys

    yield "key_bytes", key_bytes()
    _check_shards(runs, split, info.splits[split])
    for name, pieces in numbers.items():
        values = np.concatenate(pieces)
        pieces.clear()
        if (values == values[0]).all():
            values = values[:1]
        elif name == "key_end":  # the values so far are the lengths of the keys
            values = np.cumsum(values, dtype=np.int64)
        yield name, [_narrow(values)]
    pa.default_memory_pool().release_unused()  # Arrow would keep a third of it


def _numbers(
    table: pa.Table, key_ends: np.ndarray, maps: list[str], split: str
) -> Iterator[tuple[str, np.ndarray]]:
    offset, span, begin, size, check = (
        numbers(whole(table[name]))
        for name in ("offset", "span", "image_offset", "image_size", "check")
    )
    yield "offset", offset
    yield "span", span
    yield "check", check
    yield "image_begin", begin - offset
    yield "image_rest", offset + span - begin - size
    yield "label", _labels(whole(table["label"]))
    yield "key_end", np.diff(key_ends)
    for name in maps:
        begin, size = _places(whole(table["members"]), name, split)
        yield f"begin:{name}", begin - offset
        yield f"size:{name}", size


def _labels(labels: pa.Array) -> np.ndarray:
    """Labels as numbers, -1 where there is none."""
    there = numbers(pc.cast(labels.is_valid(), pa.uint8())).astype(bool)
    found = np.full(len(labels), -1, dtype=np.int64)
    found[there] = numbers(labels.drop_null())
    return found


def _narrow(values: np.ndarray) -> np.ndarray:
    """The same values in the narrowest type that fits; check sums need all of their 64 bits."""
    if not len(values) or values.dtype == np.uint64:
        return values
    low, high = values.min(), values.max()
    fits = (k for k in _TYPES if np.iinfo(k).min <= low and high <= np.iinfo(k).max)
    return values.astype(next(fits))


def _keys(keys: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of all keys, and the places where keys begin and end: one more than keys."""
    _, places, data = keys.buffers()
    ends = np.frombuffer(places, dtype=np.int32)[keys.offset :][: len(keys) + 1]
    return np.frombuffer(data or b"", dtype=np.uint8)[ends[0] : ends[-1]], ends


def _places(members: pa.ListArray, name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The offsets and the sizes of the member `name`, which every sample must have once."""
    row = numbers(pc.list_parent_indices(members))
    names, offset, size = members.flatten().flatten()
    there = np.flatnonzero(numbers(pc.cast(pc.equal(names, name), pa.uint8())))
    if not np.array_equal(row[there], np.arange(len(members))):
        raise ShardError(
            f"split {split!r}: dataset.json lists the map {name!r}, but not every sample in the "
            "index has one: build the set anew"
        )
    return numbers(offset)[there], numbers(size)[there]


def _runs(shard: pa.DictionaryArray) -> Iterator[tuple[str, int]]:
    """The shards in the order of the rows, each with the number of its rows."""
    codes = numbers(shard.indices)
    begins = np.flatnonzero(np.diff(codes, prepend=-1))
    for begin, end in itertools.pairwise([*begins.tolist(), len(codes)]):
        yield shard[begin].as_py(), end - begin


def _check_shards(runs: list[tuple[str, int]], split: str, info: SplitInfo) -> None:
    found = [
        (name, sum(rows for _, rows in parts))  # the rows of a shard may span two row groups
        for name, parts in itertools.groupby(runs, key=lambda run: run[0])
    ]
    listed = [(part.name, part.samples) for part in info.shards if part.samples]
    rows = sum(rows for _, rows in runs)
    if found != listed or rows != info.samples:
        raise ShardError(
            f"split {split!r} has {rows} rows in {len(found)} shards in the index but "
            f"{info.samples} in {len(listed)} in dataset.json, or shards of other names or "
            "lengths: the two files are not of one set, build it anew"
        )
