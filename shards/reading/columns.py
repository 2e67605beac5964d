"""The columns of the index that reading needs: small arrays, shared by the processes of a node.

A row takes no more memory than its values need: a column is held in the narrowest type that fits, a
column whose values are all equal is held as a single value, and keys that all have one length are
held without their places. The arrays of a large set lie in a file of the cache, which is made once
on each node and mapped by all its processes, so that the memory is needed only once.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import mmap
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from shards.errors import ShardError
from shards.index import IndexReader, numbers, whole
from shards.info import DatasetInfo, SplitInfo
from shards.remote.cache import cache_root

# With fewer rows than this, sharing the arrays through a file saves too little memory.
_SHARED_ROWS = 100_000
_ALIGNMENT = 64
_CHUNK = 1 << 20
_MAGIC = b"gencomp columns 1"
_READ = [
    "shard", "key", "offset", "span", "check", "image_offset", "image_size", "label",
]  # fmt: skip
# uint64 is not among these types: numpy turns uint64 joined with other integers into floats.
_TYPES = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64)
_NONE = np.empty(0, np.uint8)

# Each array comes in pieces, one after the other: all keys at once would need the memory twice.
Arrays = Iterable[tuple[str, Iterable[np.ndarray]]]


class Columns:
    """What reading needs to know about the rows of one split; all places and sizes are in bytes.

    Attributes:
        offset: The place in the shard where the sample's span begins.
        span: The length of the span.
        check: The xxh3_64 hash of the span.
        image_begin: The place of the image in the span.
        image_rest: The number of bytes that follow the image in the span.
        label: The label; -1 for a sample without one.
        maps: For each map, its places in the spans and its sizes.
    """

    def __init__(self, lengths: np.ndarray, arrays: Mapping[str, np.ndarray]) -> None:
        self.rows = int(lengths.sum())

        def column(name: str) -> np.ndarray:
            return np.broadcast_to(arrays.get(name, _NONE), self.rows)

        self.offset = column("offset")
        self.span = column("span")
        self.check = column("check")
        self.image_begin = column("image_begin")
        self.image_rest = column("image_rest")
        self.label = column("label")
        maps = [name.removeprefix("begin:") for name in arrays if name.startswith("begin:")]
        self.maps = {name: (column(f"begin:{name}"), column(f"size:{name}")) for name in maps}
        self._key_bytes = arrays["key_bytes"]
        self._key_end = arrays.get("key_end", _NONE)
        self._shard_ends = np.cumsum(lengths)
        self._shard_ends_list = self._shard_ends.tolist()  # bisect beats numpy for a single row

    def shard(self, row: int) -> int:
        """The number of the shard that holds a row."""
        return bisect_right(self._shard_ends_list, row)

    def shards(self, rows: np.ndarray) -> list[int]:
        """The numbers of the shards that hold `rows`, each number once."""
        return np.unique(np.searchsorted(self._shard_ends, rows, side="right")).tolist()

    def key(self, row: int) -> str:
        if len(self._key_end) == 1:  # all keys have this length
            end = int(self._key_end[0]) * (row + 1)
            begin = end - int(self._key_end[0])
        else:
            begin, end = int(self._key_end[row - 1]) if row else 0, int(self._key_end[row])
        return self._key_bytes[begin:end].tobytes().decode()


def columns(
    info: DatasetInfo,
    split: str,
    index: Callable[[], IndexReader],
    shared_rows: int = _SHARED_ROWS,
) -> Columns:
    """The columns of a split; `index` is called only if they must be taken from the index.

    The columns of a split with `shared_rows` rows or more lie in a file that all processes map.
    Raises `ShardError` when the index and `dataset.json` disagree.
    """
    part = info.splits[split]
    lengths = np.array([shard.samples for shard in part.shards if shard.samples], dtype=np.int64)

    def make() -> Arrays:
        return _from_index(index(), info, split)

    if part.samples < shared_rows:
        return Columns(lengths, _in_memory(make()))
    path = cache_root() / "indexes" / info.index_bytes_hash / f"{quote(split, safe='')}.columns"
    return Columns(lengths, _shared(path, make))


def _from_index(index: IndexReader, info: DatasetInfo, split: str) -> Arrays:
    """The arrays of `Columns`, from one pass over the index, which is never whole in memory."""
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


def _shared(path: Path, make: Callable[[], Arrays]) -> Mapping[str, np.ndarray]:
    """The arrays in the file `path`, made by the first process that finds it missing or damaged.

    If the cache cannot be written, this process holds arrays of its own.
    """
    try:
        if (arrays := _load(path)) is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path.with_suffix(".lock")):
                if (arrays := _load(path)) is None:  # otherwise another process was faster
                    _save(path, make())
                    pa.default_memory_pool().release_unused()  # Arrow would keep a third of it
                    arrays = _load(path)
    except OSError:
        arrays = None
    return _in_memory(make()) if arrays is None else arrays


def _in_memory(arrays: Arrays) -> dict[str, np.ndarray]:
    return {name: np.concatenate(list(pieces) or [_NONE]) for name, pieces in arrays}


def _load(path: Path) -> dict[str, np.ndarray] | None:
    """Read-only arrays mapped from a file of `_save`; None if the file is missing or damaged."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if not _is_whole(descriptor):
            return None
        content = memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
    finally:
        os.close(descriptor)
    table_end = len(content) - 24
    table_size = int.from_bytes(content[table_end : table_end + 8], "little")
    return {
        name: np.frombuffer(content, dtype=kind, count=count, offset=offset)
        for name, kind, count, offset in json.loads(
            bytes(content[table_end - table_size :][:table_size])
        )
    }


def _is_whole(descriptor: int) -> bool:
    """Whether a file ends with the hash of all bytes before the hash."""
    size = os.fstat(descriptor).st_size - 16
    if size < len(_MAGIC) or os.pread(descriptor, len(_MAGIC), 0) != _MAGIC:
        return False
    digest = xxhash.xxh3_128()
    # The file is read, not mapped: mapped pages would count as memory of this process.
    buffer = memoryview(bytearray(_CHUNK))
    done = 0
    while done < size:
        count = os.preadv(descriptor, [buffer[: min(_CHUNK, size - done)]], done)
        if count == 0:
            return False
        digest.update(buffer[:count])
        done += count
    return digest.digest() == os.pread(descriptor, 16, size)


def _save(path: Path, arrays: Arrays) -> None:
    """Write the arrays, a table of them, the size of the table, and the hash of all of this.

    The caller holds a lock, so only one process writes at a time. A temporary file that a killed
    process has left is overwritten.
    """
    temporary = path.with_suffix(".partial")
    digest = xxhash.xxh3_128()
    table: list[tuple[str, str, int, int]] = []
    try:
        with open(temporary, "wb") as stream:

            def put(data: bytes | memoryview) -> None:
                digest.update(data)
                stream.write(data)

            put(_MAGIC)
            for name, pieces in arrays:
                put(bytes(-stream.tell() % _ALIGNMENT))
                begin, kind = stream.tell(), _NONE.dtype
                for piece in pieces:
                    kind = piece.dtype
                    put(np.ascontiguousarray(piece).view(np.uint8).data)
                count = (stream.tell() - begin) // kind.itemsize
                table.append((name, kind.str, count, begin))
            text = json.dumps(table).encode()
            put(text)
            put(len(text).to_bytes(8, "little"))
            stream.write(digest.digest())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes; it is freed when its holder dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
