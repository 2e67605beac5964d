"""Check a shard set against its index, byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shards import tars
from shards.decode import decode
from shards.errors import ShardError
from shards.index import FILE_NAME as INDEX_NAME
from shards.index import by_shard, content_hash, logical_hash, read_index
from shards.info import DatasetInfo, ShardInfo, read_info

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; key and offset are None when it concerns a whole shard."""

    what: str
    shard: str | None = None
    key: str | None = None
    offset: int | None = None

    def __str__(self) -> str:
        place = [self.shard or "the set"]
        if self.key is not None:
            place.append(f"key {self.key!r}")
        if self.offset is not None:
            place.append(f"byte {self.offset}")
        return f"{', '.join(place)}: {self.what}"


@dataclass(frozen=True)
class Report:
    """What `verify` looked at and what it found."""

    path: Path
    samples: int
    shards: int
    bytes: int
    problems: list[Problem]

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(path: str | Path, progress: Progress | None = None) -> Report:
    """Check a whole set: sizes, member lists, hashes, decodability, duplicates across splits.

    Every problem is named with shard, key and byte offset; a damaged index is the only problem
    then. `progress` is called with (samples done, samples in all). Raises `ShardError` when
    there is no set.
    """
    directory = Path(path)
    info = read_info(directory)
    shards = [shard for split in info.splits.values() for shard in split.shards]
    size = sum(shard.bytes for shard in shards)
    try:
        table = read_index(directory / INDEX_NAME, info.index_bytes_hash)
    except ShardError as error:
        return Report(directory, 0, len(shards), size, [Problem(str(error), INDEX_NAME)])
    problems = list(_index_problems(info, table))
    parts = {(p["split"][0].as_py(), p["shard"][0].as_py()): p for p in by_shard(table)}
    done = 0
    for split, shard in ((name, s) for name, sp in info.splits.items() for s in sp.shards):
        part = parts.pop((split, shard.name), None)
        rows = [] if part is None else part.to_pylist()
        problems += _shard_problems(directory, shard, rows)
        done += len(rows)
        if progress is not None:
            progress(done, table.num_rows)
    for split, name in parts:
        problems.append(Problem(f"in split {split!r} of the index but not in dataset.json", name))
    problems += _duplicates(table)
    return Report(directory, table.num_rows, len(shards), size, problems)


def _index_problems(info: DatasetInfo, table: pa.Table) -> Iterator[Problem]:
    if logical_hash(table) != info.index_hash:
        yield Problem("its content is not the one that dataset.json names", INDEX_NAME)
    for name, split in info.splits.items():
        found = pc.sum(pc.equal(table["split"], name)).as_py() or 0
        if not found == split.samples == sum(shard.samples for shard in split.shards):
            what = f"split {name!r}: {found} rows, dataset.json says {split.samples}"
            yield Problem(what, INDEX_NAME)


def _shard_problems(directory: Path, shard: ShardInfo, rows: list[dict]) -> Iterator[Problem]:
    path = directory / shard.name
    if not path.is_file():
        yield Problem("the shard is missing", shard.name)
        return
    size = path.stat().st_size
    if size != shard.bytes:
        yield Problem(f"the shard has {size} bytes, not {shard.bytes}", shard.name)
    with open(path, "rb") as stream:
        for row in rows:
            yield from _sample_problems(stream, shard.name, row)
    yield from _member_problems(path, rows)


def _sample_problems(stream: BinaryIO, shard: str, row: dict) -> Iterator[Problem]:
    contents: dict[str, bytes] = {}
    for member in row["members"]:
        stream.seek(member["offset"])
        data = stream.read(member["size"])
        if len(data) < member["size"]:
            what = f"{member['name']} is cut short: {len(data)} of {member['size']} bytes are there"
            yield Problem(what, shard, row["key"], member["offset"])
            return
        contents[member["name"]] = data
    begin = row["members"][0]["offset"]
    if content_hash(contents.values()) != row["hash"]:
        yield Problem("its content has changed (the hash differs)", shard, row["key"], begin)
    try:
        shape = decode(contents[row["image_ext"]]).shape
    except ValueError as error:
        what = f"the image cannot be decoded: {error}"
        yield Problem(what, shard, row["key"], row["image_offset"])
        return
    if shape[:2] != (row["height"], row["width"]):
        what = f"the image is {shape[1]}x{shape[0]}, the index says {row['width']}x{row['height']}"
        yield Problem(what, shard, row["key"], row["image_offset"])


def _member_problems(path: Path, rows: list[dict]) -> Iterator[Problem]:
    """The index against the real member list, sample by sample."""
    try:
        found = dict(tars.scan(path))
    except ShardError as error:
        yield Problem(str(error), path.name)
        return
    for row in rows:
        listed = [tars.Member(**member) for member in row["members"]]
        if found.pop(row["key"], None) != listed:
            what = "the tar does not hold this sample's members where the index says"
            yield Problem(what, path.name, row["key"], listed[0].offset)
    for key, members in found.items():
        yield Problem("the index does not list this sample", path.name, key, members[0].offset)


def _duplicates(table: pa.Table) -> Iterator[Problem]:
    """Samples with the same bytes in two splits: the test set would be in the training set."""
    if table.num_rows == 0:
        return
    joined = b"".join(table["hash"].to_pylist())
    hashes = np.frombuffer(joined, dtype=[("high", "<u8"), ("low", "<u8")])
    split = pa.concat_arrays(table["split"].chunks).dictionary_encode().indices.to_numpy()
    order = np.lexsort((split, hashes["low"], hashes["high"]))
    same = hashes[order][1:] == hashes[order][:-1]
    across = same & (split[order][1:] != split[order][:-1])
    for i in np.flatnonzero(across).tolist():
        first, second = (table.slice(int(order[j]), 1).to_pylist()[0] for j in (i, i + 1))
        yield Problem(
            f"the same content is in split {second['split']!r}, and in split {first['split']!r} "
            f"as {first['key']!r} ({first['shard']}, byte {first['image_offset']})",
            second["shard"],
            second["key"],
            second["image_offset"],
        )
