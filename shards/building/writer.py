"""Write one shard, a WebDataset tar, and its index rows; the bytes are reproducible."""

from __future__ import annotations

import io
import mmap
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import xxhash

from shards import tars
from shards.errors import ShardError
from shards.index import Row, row_of, shard_digest, shard_table, span_of
from shards.info import ShardInfo
from shards.reading import decode


class NewSample(NamedTuple):
    """A sample to be written.

    Attributes:
        key: The WebDataset key.
        members: The bytes of each extension, in the order of the tar: the image first, then maps of
            its pixels ('label.png', 'instance.png'), then 'cls' (an ASCII integer) and 'json'
            (attributes).
        image_ext: The extension of the image.
        width, height: The size of the image in pixels.
        label: The label, or None.
        source: What the sample was made from, in words for people.
        done: What was done to the image, in the words of `shards.reading.decode`.
    """

    key: str
    members: dict[str, bytes]
    image_ext: str
    width: int
    height: int
    label: int | None
    source: str
    done: tuple[str, ...] = ()


class NewShard(NamedTuple):
    """A finished shard: what dataset.json says about it, and its rows of the index."""

    info: ShardInfo
    maps: list[str]
    table: pa.Table
    digest: bytes


def write_shard(path: Path, split: str, name: str, samples: Iterable[NewSample]) -> NewShard | None:
    """Write the shard `name` of a split to `path`; returns None when there is no sample.

    The file is flushed to the disk, so that it survives a crash. One sample is held in memory at a
    time. Raises `ShardError` for a key that is not UTF-8 or that WebDataset would split elsewhere,
    and `OSError` when the file cannot be written.
    """
    described: list[NewSample] = []
    maps: dict[str, None] = {}  # in order of appearance
    with open(path, "wb") as stream:
        # The PAX format differs from plain tar only if a name or a size does not fit its header.
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for sample in samples:
                if (fault := name_fault(sample)) is not None:
                    raise ShardError(fault)
                for extension, data in sample.members.items():
                    tar.addfile(_header(f"{sample.key}.{extension}", data), io.BytesIO(data))
                tar.members = []  # type: ignore[attr-defined]  # else it keeps every header
                maps.update(dict.fromkeys(_maps(sample)))
                described.append(sample._replace(members={}))
        stream.flush()
        os.fsync(stream.fileno())
    return _described(path, split, name, described, list(maps)) if described else None


def file_hash(path: Path) -> str:
    """The xxh3_128 hash of a whole file in hex; the file must not be empty."""
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return xxhash.xxh3_128_hexdigest(data)


def name_fault(sample: NewSample) -> str | None:
    """The reason why the names of a sample cannot stand in a set, in one sentence, or None."""
    for name in (sample.key, sample.source):
        try:
            name.encode()
        except UnicodeEncodeError:  # the name of a file is in another encoding, or in none
            return f"the name {name!a} is not UTF-8: rename it"
    if tars.is_meta(f"{sample.key}.{sample.image_ext}"):
        return (
            f"{sample.source} lies in a folder whose name begins and ends with two underscores, "
            "which WebDataset does not read: rename the folder, or leave it out with "
            "--on-error skip"
        )
    return None


def _header(name: str, data: bytes) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    header.mode = 0o444
    header.uname = header.gname = "gencomp"
    return header


def _maps(sample: NewSample) -> list[str]:
    images = (m for m in sample.members if m.rpartition(".")[2] in decode.EXTENSIONS)
    return [name for name in images if name != sample.image_ext]


def _described(
    path: Path, split: str, name: str, samples: list[NewSample], maps: list[str]
) -> NewShard:
    """The shard as it is found by reading the tar back, so that the index agrees with the tar."""
    found = tars.scan(path)
    if [key for key, _ in found] != [sample.key for sample in samples]:
        raise ShardError(f"{name}: keys must differ and hold no dot in their last component")
    rows: list[Row] = []
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as tar:
        for sample, (key, members) in zip(samples, found, strict=True):
            offset, span = span_of(members)
            rows.append(
                row_of(
                    split, name, key, members, tar[offset : offset + span],
                    image_ext=sample.image_ext, width=sample.width, height=sample.height,
                    label=sample.label, source=sample.source,
                )
            )  # fmt: skip
        info = ShardInfo(
            name=name, bytes=len(tar), samples=len(rows), hash=xxhash.xxh3_128_hexdigest(tar)
        )
    table = shard_table(rows)
    return NewShard(info, maps, table, shard_digest(table))
