"""Shard sets and their splits, read by positional reads, every sample checked by its hash."""

from __future__ import annotations

import os
import threading
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from shards.decode import decode
from shards.errors import ShardError
from shards.index import FILE_NAME as INDEX_NAME
from shards.index import read_index
from shards.info import DatasetInfo, missing_set, read_info

# Shards beyond these are opened for each read: a process has few descriptors to give.
_MOST_OPEN = 256
_COLUMNS = ["shard", "key", "image_offset", "label", "hash", "members"]


class Sample(NamedTuple):
    """One decoded sample: `image` uint8 [H, W, 3] RGB; `row` its place in the split."""

    key: str
    image: np.ndarray
    label: int | None
    row: int


def open_set(path: str | Path) -> ShardSet:
    """Open the shard set in the directory `path`; `ShardError` when there is none."""
    directory = Path(path)
    if not directory.is_dir():
        raise ShardError(missing_set(directory))
    return ShardSet(directory, read_info(directory))


class ShardSet:
    """A directory of WebDataset tars with their index."""

    def __init__(self, path: Path, info: DatasetInfo) -> None:
        self.path = path
        self.info = info

    @property
    def index_hash(self) -> str:
        return self.info.index_hash

    @property
    def splits(self) -> dict[str, int]:
        """Samples by split."""
        return self.info.counts

    def split(self, name: str) -> Split:
        """The split of that name; `ShardError` that names the splits there are."""
        if name not in self.splits:
            there = ", ".join(f"{k} ({n} samples)" for k, n in self.splits.items())
            raise ShardError(f"{self.path} has no split {name!r}: it has {there or 'none'}")
        return Split(self.path.absolute(), name, self.info)


class _Columns:
    """The index columns that reading needs, as flat numpy arrays (about 70 bytes a sample)."""

    def __init__(self, table: pa.Table) -> None:
        shard = _whole(table["shard"]).dictionary_encode()
        self.shard_names: list[str] = shard.dictionary.to_pylist()
        self.shard = shard.indices.to_numpy().astype(np.int32)
        keys = _whole(table["key"]).cast(pa.large_string())
        lengths = pc.binary_length(keys).to_numpy()
        self.key_end = np.cumsum(lengths)
        begin = np.frombuffer(keys.buffers()[1], dtype=np.int64)[keys.offset]
        self.key_bytes = np.frombuffer(keys.buffers()[2] or b"", dtype=np.uint8)[
            begin : begin + int(lengths.sum())
        ].copy()
        self.label = pc.fill_null(_whole(table["label"]), -1).to_numpy()
        hashes = _whole(table["hash"])
        raw = np.frombuffer(hashes.buffers()[1] or b"", dtype=np.uint8).reshape(-1, 16)
        self.hash = raw[hashes.offset : hashes.offset + len(hashes)].copy()
        members = _whole(table["members"])
        self.member_end = np.cumsum(pc.list_value_length(members).to_numpy())
        _, offsets, sizes = members.flatten().flatten()
        self.member_offset = offsets.to_numpy().copy()
        self.member_size = sizes.to_numpy().copy()
        self.image_offset = _whole(table["image_offset"]).to_numpy().copy()


class Split:
    """The samples of one split by row, the position in the index: a stable image number.

    May be shared by threads, inherited by forked processes and pickled (a copy opens the set
    anew and insists on the same index).
    """

    def __init__(self, path: Path, name: str, info: DatasetInfo) -> None:
        self.path = path
        self.name = name
        self.index_hash = info.index_hash
        self._length = length = info.counts[name]
        self._columns = _Columns(
            read_index(path / INDEX_NAME, info.index_bytes_hash, _COLUMNS, name)
        )
        found = len(self._columns.shard)
        if found != length:
            raise ShardError(
                f"{path}: split {name!r} has {found} rows in {INDEX_NAME} but {length} in "
                "dataset.json: run `gencomp shards verify` and build the set anew"
            )
        self._descriptors: dict[int, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._length

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self.name, self.index_hash)

    def __del__(self) -> None:
        for descriptor in getattr(self, "_descriptors", {}).values():
            os.close(descriptor)

    @cached_property
    def key_hash(self) -> str:
        """Identifies the data: the index hash and the split's name."""
        return f"{self.index_hash}/{self.name}"

    def key(self, row: int) -> str:
        columns, row = self._columns, self._checked(row)
        begin = columns.key_end[row - 1] if row else 0
        return columns.key_bytes[begin : columns.key_end[row]].tobytes().decode()

    def label(self, row: int) -> int | None:
        label = int(self._columns.label[self._checked(row)])
        return None if label < 0 else label

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """Labels of many rows, int64; -1 where there is none."""
        return self._columns.label[rows]

    def read(self, row: int) -> Sample:
        """Read, check and decode one sample.

        Raises `ShardError` with shard, key and byte offset when it is missing, cut short,
        changed since it was indexed, or no image.
        """
        row = self._checked(row)
        return Sample(self.key(row), self.image(row), self.label(row), row)

    def read_many(self, rows: np.ndarray) -> list[Sample]:
        """The samples at `rows` (int64), in that order."""
        return [self.read(row) for row in np.asarray(rows, dtype=np.int64).tolist()]

    def image(self, row: int, out: np.ndarray | None = None) -> np.ndarray:
        """The decoded image of a row, uint8 [H, W, 3] RGB; raises as `read` does.

        It is put into `out`, and that is returned, when `out` has its shape.
        """
        data = self._image_bytes(self._checked(row))
        try:
            return decode(data, out)
        except ValueError as error:
            raise self._error(row, f"cannot be decoded: {error}") from None

    def place(self, row: int) -> tuple[str, str, int]:
        """Where a row lies: (shard, key, byte offset of its image)."""
        columns, row = self._columns, self._checked(row)
        shard = columns.shard_names[columns.shard[row]]
        return shard, self.key(row), int(columns.image_offset[row])

    def _image_bytes(self, row: int) -> bytes:
        columns = self._columns
        first = int(columns.member_end[row - 1]) if row else 0
        last = int(columns.member_end[row]) - 1
        begin = int(columns.member_offset[first])
        end = int(columns.member_offset[last]) + int(columns.member_size[last])
        raw = self._pread(row, int(columns.shard[row]), begin, end - begin)
        image = raw
        if first == last:
            digest = xxhash.xxh3_128_digest(raw)
        else:  # members follow one another, with headers between them
            state, view = xxhash.xxh3_128(), memoryview(raw)
            for m in range(first, last + 1):
                offset = int(columns.member_offset[m])
                part = view[offset - begin : offset - begin + int(columns.member_size[m])]
                state.update(part)
                if offset == columns.image_offset[row]:
                    image = bytes(part)
            digest = state.digest()
        if digest != columns.hash[row].tobytes():
            raise self._error(row, "has changed since it was indexed (its hash differs)")
        return image

    def _pread(self, row: int, shard: int, begin: int, size: int) -> bytes:
        try:
            descriptor, kept = self._descriptor(shard)
            try:
                raw = os.pread(descriptor, size, begin)
            finally:
                if not kept:
                    os.close(descriptor)
        except OSError as error:
            raise self._error(row, f"cannot be read: {error.strerror}") from None
        if len(raw) < size:
            raise self._error(row, f"is cut short: {len(raw)} of {size} bytes are there")
        return raw

    def _descriptor(self, shard: int) -> tuple[int, bool]:
        """An open descriptor of a shard, and whether it stays open."""
        descriptor = self._descriptors.get(shard)
        if descriptor is not None:
            return descriptor, True
        with self._lock:
            if shard not in self._descriptors:
                path = self.path / self._columns.shard_names[shard]
                opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                if len(self._descriptors) >= _MOST_OPEN:
                    return opened, False
                self._descriptors[shard] = opened
            return self._descriptors[shard], True

    def _checked(self, row: int) -> int:
        if not 0 <= row < self._length:
            raise ShardError(
                f"{self.path}: split {self.name!r} has rows 0 to {self._length - 1}, not {row}"
            )
        return row

    def _error(self, row: int, what: str) -> ShardError:
        shard, key, offset = self.place(row)
        return ShardError(
            f"{self.path / shard}, key {key!r}, byte {offset}: the sample {what}; "
            "`gencomp shards verify` lists all the damage"
        )


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _reopen(path: Path, name: str, index_hash: str) -> Split:
    there = open_set(path)
    if there.index_hash != index_hash:
        raise ShardError(f"{path} is another set now: its index hash has changed")
    return there.split(name)
