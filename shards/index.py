"""`index.parquet`: a row for each sample, ordered by split, then shard, then place in the tar."""

from __future__ import annotations

import hashlib
import itertools
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from shards.errors import ShardError
from shards.info import FILE_NAME as INFO_NAME
from shards.tars import Member

FILE_NAME = "index.parquet"
SCHEMA = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("image_ext", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("span", pa.int64(), nullable=False),
        pa.field("check", pa.uint64(), nullable=False),
        pa.field("image_offset", pa.int64(), nullable=False),
        pa.field("image_size", pa.int64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("label", pa.int64()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("hash", pa.binary(16), nullable=False),
        pa.field(
            "members",
            pa.list_(
                pa.struct([("name", pa.string()), ("offset", pa.int64()), ("size", pa.int64())])
            ),
            nullable=False,
        ),
    ]
)
# Opening a set reads whole row groups. With a row group for each shard, the three thousand row
# groups of a large set would cost seconds.
_GROUP_ROWS = 1 << 17
_REPETITIVE = ["split", "shard", "image_ext", "width", "height", "label"]


class Row(NamedTuple):
    """One sample: where it lies and what it is.

    The `span` bytes from `offset` on hold all members of the sample with the headers between them.
    `check` is the xxh3_64 hash of these bytes, which every read verifies. `hash` is the xxh3_128
    hash of the image member alone, so it is equal for equal pictures, whatever their labels.
    Offsets and sizes are in bytes.
    """

    split: str
    shard: str
    key: str
    image_ext: str
    offset: int
    span: int
    check: int
    image_offset: int
    image_size: int
    width: int
    height: int
    label: int | None
    source: str
    hash: bytes
    members: list[Member]


def span_of(members: list[Member]) -> tuple[int, int]:
    """The (offset, span) of a sample: the place and the number of the bytes of all its members."""
    offset = members[0].offset
    return offset, members[-1].offset + members[-1].size - offset


def row_of(
    split: str,
    shard: str,
    key: str,
    members: list[Member],
    content: bytes | memoryview,
    *,
    image_ext: str,
    width: int,
    height: int,
    label: int | None,
    source: str,
) -> Row:
    """The index row of a sample whose members lie where `tars.scan` found them.

    `content` holds the bytes of the tar at `span_of(members)`.
    """
    offset, span = span_of(members)
    assert len(content) == span
    image = next(member for member in members if member.name == image_ext)
    begin = image.offset - offset
    return Row(
        split=split,
        shard=shard,
        key=key,
        image_ext=image_ext,
        offset=offset,
        span=span,
        check=xxhash.xxh3_64_intdigest(content),
        image_offset=image.offset,
        image_size=image.size,
        width=width,
        height=height,
        label=label,
        source=source,
        hash=xxhash.xxh3_128_digest(memoryview(content)[begin : begin + image.size]),
        members=members,
    )


def shard_table(rows: list[Row]) -> pa.Table:
    """The rows of one shard as a table of `SCHEMA`."""
    columns: dict[str, list[Any]] = {
        name: [row[i] for row in rows] for i, name in enumerate(Row._fields)
    }
    columns["members"] = [[member._asdict() for member in row.members] for row in rows]
    return pa.Table.from_pydict(columns, schema=SCHEMA)


def shard_digest(table: pa.Table) -> bytes:
    """The sha256 hash of the values of one shard's rows, however Arrow lays them out in memory."""
    digest = hashlib.sha256(struct.pack("<q", table.num_rows))
    for name in SCHEMA.names:
        digest.update(f"/{name}:".encode())
        _feed(digest, whole(table[name]))
    return digest.digest()


class IndexWriter:
    """Writes the index shard by shard, in constant memory, and hashes its logical content.

    All row groups but the last have `group_rows` rows each.
    """

    def __init__(self, path: Path, group_rows: int = _GROUP_ROWS) -> None:
        self._path, self._group_rows = path, group_rows
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._writer = pq.ParquetWriter(
            self._temporary, SCHEMA, compression="zstd", use_dictionary=_REPETITIVE,
            write_statistics=False,
        )  # fmt: skip
        self._digest = hashlib.sha256()
        self._waiting: list[pa.Table] = []

    def add(self, table: pa.Table, digest: bytes) -> None:
        """Add all the rows of the next shard, `shard_table(...)`, and their `shard_digest`."""
        if table.num_rows == 0:
            return
        self._digest.update(digest)
        self._waiting.append(table)
        rows = sum(waiting.num_rows for waiting in self._waiting)
        if rows >= self._group_rows:
            self._write(rows - rows % self._group_rows)

    def close(self) -> tuple[str, str]:
        """Put the file in its place, and return the index hash and the hash of the file's bytes."""
        self._write(sum(waiting.num_rows for waiting in self._waiting))
        self._writer.close()
        bytes_hash = xxhash.xxh3_128_hexdigest(map_index(self._temporary))
        os.replace(self._temporary, self._path)
        return self._digest.hexdigest(), bytes_hash

    def discard(self) -> None:
        self._writer.close()
        self._temporary.unlink(missing_ok=True)

    def _write(self, rows: int) -> None:
        if rows:
            table = pa.concat_tables(self._waiting)
            self._writer.write_table(table.slice(0, rows), row_group_size=self._group_rows)
            self._waiting = [table.slice(rows)]


class IndexReader:
    """The content of the index file `where`, whose bytes must have the hash `bytes_hash`.

    The bytes are hashed before anything is parsed, since parsing a damaged Parquet file may never
    end. The columns `split` and `shard` are dictionary arrays.
    """

    def __init__(self, content: bytes | pa.Buffer, where: str, bytes_hash: str) -> None:
        if xxhash.xxh3_128_hexdigest(content) != bytes_hash:
            raise ShardError(
                f"{where} is damaged or of another set: its bytes do not have the hash that "
                f"{INFO_NAME} names"
            )
        self._where = where
        with self._damage_named():
            self._file = pq.ParquetFile(
                pa.BufferReader(content), read_dictionary=["split", "shard"]
            )
            groups = self._file.metadata
        rows = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
        self._starts = np.cumsum([0, *rows])

    def table(self, columns: list[str] | None = None, split: str | None = None) -> pa.Table:
        """These columns (all by default) of the rows of one split (of all by default)."""
        with self._damage_named():
            if split is None:
                return self._file.read(columns=columns)
            groups, first, length = self._range(split)
            return self._file.read_row_groups(groups, columns=columns).slice(first, length)

    def tables(self, columns: list[str], split: str) -> Iterator[pa.Table]:
        """These columns of the rows of one split in pieces of some MB, for columns that are large.

        The rows are the same as those of `table`.
        """
        groups, first, length = self._range(split)
        for group in groups:
            with self._damage_named():
                table = self._file.read_row_group(group, columns=columns).slice(first, length)
            first, length = 0, length - table.num_rows
            yield table

    def _range(self, split: str) -> tuple[list[int], int, int]:
        """The row groups that hold a split, its first row in the first of them, and its length."""
        first, last = self._ranges.get(split, (0, 0))
        groups = np.flatnonzero((self._starts[:-1] < last) & (self._starts[1:] > first)).tolist()
        return groups, first - int(self._starts[groups[0]]) if groups else 0, last - first

    @cached_property
    def _ranges(self) -> dict[str, tuple[int, int]]:
        """The rows [first, last) of each split."""
        names = whole(self._file.read(columns=["split"])["split"])
        if not len(names):
            return {}
        codes = numbers(names.indices)
        cuts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
        return {names[a].as_py(): (a, b) for a, b in itertools.pairwise(cuts)}

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ShardError(f"{self._where} is damaged: {reason}") from None


def map_index(path: Path) -> pa.Buffer:
    """The bytes of a local index; raises `ShardError` when the file is missing."""
    try:
        if path.stat().st_size == 0:
            return pa.py_buffer(b"")
        with pa.memory_map(str(path)) as file:
            return file.read_buffer()
    except FileNotFoundError:
        raise ShardError(f"{path.parent} has no {path.name}: it is no whole shard set") from None
    except OSError as error:
        raise ShardError(f"{path} cannot be read: {error.strerror or error}") from None


def by_shard(table: pa.Table) -> Iterator[pa.Table]:
    """The rows of an index, cut where the split or the shard changes; nothing is copied."""
    if table.num_rows == 0:
        return
    shard, split = (
        whole(table[name]).dictionary_encode().indices.to_numpy() for name in ("shard", "split")
    )
    starts = np.flatnonzero((np.diff(shard) != 0) | (np.diff(split) != 0)) + 1
    for begin, end in itertools.pairwise([0, *starts.tolist(), table.num_rows]):
        yield table.slice(begin, end - begin)


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as a single array."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def numbers(array: pa.Array) -> np.ndarray:
    """The numbers of an array without nulls, which numpy reads where they are.

    `to_numpy` would import pandas, which takes as long as all else that opens a set.
    """
    return np.from_dlpack(array)


def _feed(digest: Any, array: pa.Array) -> None:
    """Feed the values of an array to a digest: first validity, then lengths and contents.

    All numbers are little-endian.
    """
    digest.update(np.asarray(array.is_valid(), dtype=np.uint8).tobytes())
    if pa.types.is_list(array.type):
        digest.update(np.asarray(pc.list_value_length(array), dtype="<i8").tobytes())
        _feed(digest, array.flatten())
    elif pa.types.is_struct(array.type):
        for field, values in zip(array.type, array.flatten(), strict=True):
            digest.update(f".{field.name}:".encode())
            _feed(digest, values)
    elif pa.types.is_integer(array.type):
        kind = "<u8" if array.type == pa.uint64() else "<i8"
        digest.update(np.asarray(pc.fill_null(array, 0), dtype=kind).tobytes())
    else:
        values = [v.encode() if isinstance(v, str) else v for v in array.to_pylist()]
        digest.update(np.array([len(v) for v in values], dtype="<i8").tobytes())
        digest.update(b"".join(values))
