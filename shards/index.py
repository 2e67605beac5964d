"""`index.parquet`: one row a sample, and the index of tars that somebody else wrote."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from shards import decode, tars
from shards.errors import ShardError
from shards.info import (
    FILE_NAME as INFO_NAME,
)
from shards.info import (
    DatasetInfo,
    ShardInfo,
    SplitInfo,
    Transform,
    created_by,
    read_info,
    write_info,
)
from shards.tars import Member

FILE_NAME = "index.parquet"
SCHEMA = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("image_ext", pa.string(), nullable=False),
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
_SPLIT_WORD = re.compile(r"(?:^|[-_.])(train|val|validation|valid|test)(?=[-_.]|$)")


class Row(NamedTuple):
    """One sample: where it lies and what it is. `hash` is xxh3_128 over its members' bytes."""

    split: str
    shard: str
    key: str
    image_ext: str
    width: int
    height: int
    label: int | None
    source: str
    hash: bytes
    members: list[Member]

    @property
    def image(self) -> Member:
        return next(member for member in self.members if member.name == self.image_ext)


def content_hash(parts: Iterable[bytes]) -> bytes:
    """xxh3_128 over the members' bytes in tar order."""
    digest = xxhash.xxh3_128()
    for part in parts:
        digest.update(part)
    return digest.digest()


class IndexWriter:
    """Writes the index shard by shard, in constant memory, and hashes its logical content."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._writer = pq.ParquetWriter(self._temporary, SCHEMA, compression="zstd")
        self._digest = hashlib.sha256()

    def add(self, rows: list[Row]) -> None:
        """Add all the rows of one shard."""
        table = _table(rows)
        self._writer.write_table(table)
        self._digest.update(_digest(table))

    def close(self) -> tuple[str, str]:
        """Put the file in its place; (index hash, hash of the file's bytes)."""
        self._writer.close()
        bytes_hash = _bytes_hash(_map(self._temporary))
        os.replace(self._temporary, self._path)
        return self._digest.hexdigest(), bytes_hash

    def discard(self) -> None:
        self._writer.close()
        self._temporary.unlink(missing_ok=True)


def read_index(
    path: Path, bytes_hash: str, columns: list[str] | None = None, split: str | None = None
) -> pa.Table:
    """Columns of the index (all by default), of one split or of all.

    The file's bytes are hashed first, since parsing a damaged Parquet file may never end.
    """
    try:
        content = _map(path)
        if _bytes_hash(content) != bytes_hash:
            raise ShardError(
                f"{path} is damaged or of another set: its bytes are not those that {INFO_NAME} "
                "names"
            )
        return pq.read_table(
            pa.BufferReader(content),
            columns=columns,
            filters=None if split is None else [("split", "=", split)],
        )
    except FileNotFoundError:
        raise ShardError(f"{path.parent} has no {path.name}: it is no whole shard set") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ShardError(f"{path} is damaged: {reason}") from None


def _map(path: Path) -> pa.Buffer:
    if path.stat().st_size == 0:
        return pa.py_buffer(b"")
    with pa.memory_map(str(path)) as file:
        return file.read_buffer()


def _bytes_hash(content: pa.Buffer) -> str:
    return xxhash.xxh3_128_hexdigest(content)


def logical_hash(table: pa.Table) -> str:
    """The index hash of a whole index: sha256 over the digests of its shards, in file order.

    It depends on the values alone, not on how Parquet or Arrow lays them out.
    """
    total = hashlib.sha256()
    for part in by_shard(table):
        total.update(_digest(part))
    return total.hexdigest()


def by_shard(table: pa.Table) -> Iterator[pa.Table]:
    """The rows of an index, cut where the split or the shard changes; no copies."""
    if table.num_rows == 0:
        return
    shard, split = (
        pa.concat_arrays(table[name].chunks).dictionary_encode().indices.to_numpy()
        for name in ("shard", "split")
    )
    starts = np.flatnonzero((np.diff(shard) != 0) | (np.diff(split) != 0)) + 1
    for begin, end in itertools.pairwise([0, *starts.tolist(), table.num_rows]):
        yield table.slice(begin, end - begin)


def _table(rows: list[Row]) -> pa.Table:
    records: list[dict[str, Any]] = []
    for row in rows:
        image = row.image
        record = {**row._asdict(), "image_offset": image.offset, "image_size": image.size}
        record["members"] = [member._asdict() for member in row.members]
        records.append(record)
    return pa.Table.from_pylist(records, schema=SCHEMA)


def _digest(table: pa.Table) -> bytes:
    digest = hashlib.sha256(struct.pack("<q", table.num_rows))
    for name in SCHEMA.names:
        digest.update(f"/{name}:".encode())
        _feed(digest, pa.concat_arrays(table[name].chunks))
    return digest.digest()


def _feed(digest: Any, array: pa.Array) -> None:
    """Feed an array's values: validity, then lengths and contents, all little-endian."""
    digest.update(np.asarray(array.is_valid(), dtype=np.uint8).tobytes())
    if pa.types.is_list(array.type):
        digest.update(np.asarray(pc.list_value_length(array), dtype="<i8").tobytes())
        _feed(digest, array.flatten())
    elif pa.types.is_struct(array.type):
        for field, values in zip(array.type, array.flatten(), strict=True):
            digest.update(f".{field.name}:".encode())
            _feed(digest, values)
    elif pa.types.is_integer(array.type):
        digest.update(np.asarray(pc.fill_null(array, 0), dtype="<i8").tobytes())
    else:
        values = [v.encode() if isinstance(v, str) else v for v in array.to_pylist()]
        digest.update(np.array([len(v) for v in values], dtype="<i8").tobytes())
        digest.update(b"".join(values))


def index_tars(*paths: str | Path, split: str | None = None) -> DatasetInfo:
    """Index foreign WebDataset tars in place: `index.parquet` and `dataset.json` beside them.

    Args:
        paths: one directory (all its `*.tar`), or tars that lie in one directory.
        split: the split of all of them; by default the word train, val, valid, validation or
            test in each file's name, else `train`.

    Nothing is copied or changed. The label is the member `cls` when it is an integer. Raises
    `ShardError` when a tar is compressed or damaged, a sample has no image, or the directory has
    another index already.
    """
    directory, files = _tar_files(paths)
    shards: dict[str, list[Path]] = {}
    for file in files:
        shards.setdefault(split or _split_of(file.name), []).append(file)
    temporary = directory / f".indexing.{os.getpid()}.{FILE_NAME}"
    writer = IndexWriter(temporary)
    try:
        splits = {
            name: _index_split(writer, name, members) for name, members in sorted(shards.items())
        }
        index_hash, bytes_hash = writer.close()
        info = DatasetInfo(
            name=directory.name,
            source="tars",
            parameters={"split": split},
            transform=Transform(size=None, geometry="none: as found", storage="original"),
            splits=splits,
            index_hash=index_hash,
            index_bytes_hash=bytes_hash,
            created_by=created_by(),
        )
        if _existing_index(directory, info):
            return read_info(directory)
        os.replace(temporary, directory / FILE_NAME)
        write_info(info, directory)
        return info
    finally:
        writer.discard()
        temporary.unlink(missing_ok=True)


def _existing_index(directory: Path, info: DatasetInfo) -> bool:
    """True when the directory has this very index already; raises when it has another."""
    if not (directory / INFO_NAME).exists():
        return False
    there = read_info(directory)
    if (there.index_hash, there.splits) != (info.index_hash, info.splits):
        raise ShardError(
            f"{directory} has an index already, and it differs from what its tars hold now: "
            f"remove {INFO_NAME} and {FILE_NAME} there to index it anew"
        )
    return True


def _tar_files(paths: tuple[str | Path, ...]) -> tuple[Path, list[Path]]:
    given = [Path(path) for path in paths]
    if len(given) == 1 and given[0].is_dir():
        inside = sorted(given[0].iterdir())
        files = [p for p in inside if p.name.endswith(".tar")]
        packed = [p.name for p in inside if re.search(r"\.(tar\.\w+|tgz)$", p.name)]
        if not files and packed:
            raise ShardError(
                f"{given[0]} holds only compressed tars ({packed[0]}), which cannot be read at any "
                "offset: uncompress them first (for example `gunzip`)"
            )
    else:
        files = sorted(given)
    if not files:
        raise ShardError(f"there are no tars to index in {', '.join(map(str, given)) or 'nothing'}")
    if missing := [p for p in files if not p.is_file()]:
        raise ShardError(f"there is no tar {missing[0]}")
    if len({p.parent.resolve() for p in files}) > 1:
        raise ShardError("the tars of one shard set must lie in one directory")
    return files[0].parent, files


def _split_of(file_name: str) -> str:
    match = _SPLIT_WORD.search(file_name)
    return match[1] if match else "train"


def _index_split(writer: IndexWriter, split: str, files: list[Path]) -> SplitInfo:
    shards = []
    for file in files:
        rows = [_foreign_row(split, file, key, members) for key, members in tars.scan(file)]
        if rows:
            writer.add(rows)
        shards.append(ShardInfo(name=file.name, bytes=file.stat().st_size, samples=len(rows)))
    return SplitInfo(samples=sum(shard.samples for shard in shards), shards=shards)


def _foreign_row(split: str, file: Path, key: str, members: list[Member]) -> Row:
    names = [member.name for member in members]
    images = [n for n in names if n in decode.EXTENSIONS] or [
        n for n in names if n.rpartition(".")[2] in decode.EXTENSIONS
    ]
    place = f"{file}, key {key!r}, byte {members[0].offset}"
    if not images:
        raise ShardError(f"{place}: the sample has no image (it has {', '.join(names)})")
    with open(file, "rb") as stream:
        contents = {m.name: os.pread(stream.fileno(), m.size, m.offset) for m in members}
    try:
        width, height = decode.image_size(contents[images[0]])
    except ValueError as error:
        raise ShardError(f"{place}: {images[0]} cannot be read as an image: {error}") from None
    return Row(
        split=split,
        shard=file.name,
        key=key,
        image_ext=images[0],
        width=width,
        height=height,
        label=_label(contents.get("cls")),
        source=file.name,
        hash=content_hash(contents.values()),
        members=members,
    )


def _label(content: bytes | None) -> int | None:
    try:
        return None if content is None else int(content)
    except ValueError:
        return None
