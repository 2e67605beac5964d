"""Reading a whole set in many processes: its files as local files, its index in batches."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from shards.errors import ShardError
from shards.index import FILE_NAME as INDEX_NAME
from shards.index import SCHEMA, by_shard
from shards.info import FILE_NAME as INFO_NAME
from shards.info import DatasetInfo
from shards.pool import usable_cpus
from shards.remote.cache import cache_root
from shards.remote.stores import Store, store

_BATCH_ROWS = 1 << 15
# A worker takes about half a second to start. In that time, less than this many bytes are read
# without it.
_BYTES_A_PROCESS = 32 << 20


def processes_for(info: DatasetInfo, wanted: int | None) -> int:
    """The number of processes that read a whole set: `wanted`, or by default as many as pay off.

    Raises `ShardError` when fewer than one process is wanted.
    """
    if wanted is None:
        size = sum(shard.bytes for split in info.splits.values() for shard in split.shards)
        return max(1, min(usable_cpus(), size // _BYTES_A_PROCESS))
    if wanted < 1:
        raise ShardError(f"{wanted} processes cannot work: at least 1 is needed")
    return wanted


@contextmanager
def local_file(place: Store, name: str) -> Iterator[BinaryIO]:
    """A file of a store as a local file.

    A remote file is copied into a file without a name, which disappears even after a crash. Raises
    `ShardError` when the file is missing or cannot be read.
    """
    if place.local_path(name) is not None:
        with place.open(name) as stream:
            yield stream
        return
    with _unnamed(cache_root()) as copy:
        _copy(place, name, copy)
        yield copy


def _unnamed(directory: Path) -> BinaryIO:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return cast("BinaryIO", tempfile.TemporaryFile(dir=directory))
    except OSError as error:
        raise ShardError(_no_room(directory, error)) from None


def _copy(place: Store, name: str, copy: BinaryIO) -> None:
    try:
        for piece in place.pieces(name):
            copy.write(piece)
        copy.flush()
    except OSError as error:  # an error of this disk: errors of the store are `ShardError`
        raise ShardError(_no_room(cache_root(), error)) from None


def _no_room(directory: Path, error: OSError) -> str:
    return (
        f"remote files cannot be copied to {directory}: {error.strerror}: set GENCOMP_CACHE to a "
        "directory with more room"
    )


def open_index(location: str | Path, info: DatasetInfo) -> pq.ParquetFile:
    """The index of the set at `location`, mapped into memory.

    Raises `ShardError` when the index is missing or not the one that `info` names. A damaged
    Parquet file is never parsed, since parsing it may never end.
    """
    with local_file(store(location), INDEX_NAME) as stream:
        size = os.fstat(stream.fileno()).st_size
        content = mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ) if size else b""
    if xxhash.xxh3_128_hexdigest(content) != info.index_bytes_hash:
        raise ShardError(
            f"{INDEX_NAME} in {location} is damaged or of another set: its bytes do not have the "
            f"hash that {INFO_NAME} names"
        )
    index = pq.ParquetFile(pa.BufferReader(pa.py_buffer(content)))
    if not index.schema_arrow.equals(SCHEMA):
        raise ShardError(f"{INDEX_NAME} in {location} has other columns than a shard set's index")
    return index


def batches(index: pq.ParquetFile, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """These columns (all by default) of all the rows, some thousands of rows at a time."""
    for batch in index.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
        yield pa.Table.from_batches([batch])


def shard_tables(index: pq.ParquetFile) -> Iterator[pa.Table]:
    """All the rows, cut where the split or the shard changes."""
    rest: list[pa.Table] = []
    for batch in batches(index):
        *finished, last = by_shard(pa.concat_tables([*rest, batch]))
        yield from finished
        rest = [last]
    yield from rest


def rows_at(index: pq.ParquetFile, rows: np.ndarray, columns: list[str]) -> pa.Table:
    """Some `rows` (int64, ascending) of the index; only the row groups that hold them are read."""
    groups = [index.metadata.row_group(group).num_rows for group in range(index.num_row_groups)]
    ends = np.cumsum([0, *groups])[1:]
    tables = [SCHEMA.empty_table().select(columns)]
    for group in np.unique(np.searchsorted(ends, rows, side="right")).tolist():
        begin, end = ends[group] - groups[group], ends[group]
        here = rows[np.searchsorted(rows, begin) : np.searchsorted(rows, end)] - begin
        tables.append(index.read_row_group(group, columns).take(here))
    return pa.concat_tables(tables)
