"""The columns of the index that reading needs: small arrays, shared by the processes of a node.

A row takes no more memory than its values need: a column is held in the narrowest type that fits, a
column whose values are all equal is held as a single value, and keys that all have one length are
held without their places. The arrays of a set lie in a file of the cache, which is made once on
each node and mapped by all its processes, so that the memory is needed only once, and the time to
read the index too.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import xxhash

from shards.info import DatasetInfo
from shards.remote.cache import cache_root

if TYPE_CHECKING:
    from shards.reading.index_columns import Arrays

_ALIGNMENT = 64
_CHUNK = 1 << 20
_MAGIC = b"gencomp columns 1"
_NONE = np.empty(0, np.uint8)


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


def columns(path: str | Path, info: DatasetInfo, split: str) -> Columns:
    """The columns of a split of the set at `path`, a directory or a URI.

    The index is read only if no process of this node has done so before. Raises `ShardError` when
    the index and `dataset.json` disagree.
    """
    part = info.splits[split]
    lengths = np.array([shard.samples for shard in part.shards if shard.samples], dtype=np.int64)

    def make() -> Arrays:
        # Arrow takes 0.3 s to import, which a process that maps the file need not wait for.
        from shards.reading.index_columns import from_index, open_index

        return from_index(open_index(path, info), info, split)

    file = cache_root() / "indexes" / info.index_bytes_hash / f"{quote(split, safe='')}.columns"
    return Columns(lengths, _shared(file, make))


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
