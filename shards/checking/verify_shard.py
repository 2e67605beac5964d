"""Check one shard, byte for byte, against its rows of the index and its line in dataset.json."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import xxhash

from shards import tars
from shards.building.foreign import belongs_to_no_image, sample_place
from shards.checking.whole_set import local_file
from shards.errors import ShardError
from shards.index import span_of
from shards.info import ShardInfo
from shards.reading import decode as decoding
from shards.reading.decode import MAX_PIXELS
from shards.reading.maps import map_pixels
from shards.remote.stores import MissingObject, store

MOST_KEPT = 1000  # problems that are kept to be shown; the others are only counted
_CHUNK = 4 << 20
_ROWS = 1024  # the number of rows that are Python objects at a time


@dataclass(frozen=True)
class Problem:
    """One problem; `key` and `offset` are None when it concerns a whole shard."""

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


@dataclass
class Problems:
    """The number of problems that were `found`, and the first `MOST_KEPT` of them.

    `left_out` counts the images of which reading leaves something out, which is no problem.
    """

    found: int = 0
    kept: list[Problem] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.found += 1
            if len(self.kept) < MOST_KEPT:
                self.kept.append(problem)

    def merge(self, other: Problems) -> None:
        self.left_out.update(other.left_out)
        self.found += other.found
        self.kept += other.kept[: MOST_KEPT - len(self.kept)]


class ShardTask(NamedTuple):
    """A shard to check.

    `place` is the directory or the URI of the tars, and `rows` are the shard's rows of the index as
    an Arrow stream. `left_out` are the places of samples that the index leaves out (`sample_place`)
    if another program wrote the tar; None for a tar of ours, whose index leaves out none.
    """

    place: str | Path
    shard: ShardInfo
    maps: tuple[str, ...]
    rows: bytes
    left_out: frozenset[str] | None


def packed(table: pa.Table) -> bytes:
    """A table as an Arrow stream; pickling a slice would pickle the whole table behind it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def check_shard(task: ShardTask, report: Callable[[int], None]) -> tuple[int, Problems]:
    """The number of samples in one shard, and everything that is wrong with the shard."""
    problems = Problems()
    table = pa.ipc.open_stream(task.rows).read_all()
    name = task.shard.name
    try:
        with local_file(store(task.place), name) as stream:
            problems.add(_file_problems(stream, task.shard))
            done = 0
            for batch in table.to_batches(max_chunksize=_ROWS):
                for row in batch.to_pylist():
                    problems.add(_sample_problems(stream, name, row, task.maps, problems.left_out))
                    report(done := done + 1)
            problems.add(_member_problems(stream, name, table, task.left_out))
    except OSError as error:
        problems.add([Problem(f"the shard cannot be read: {error.strerror or error}", name)])
    except MissingObject:
        problems.add([Problem("the shard is missing", name)])
    except ShardError as error:
        what = str(error).removeprefix(name).lstrip(": ")  # a problem names its shard itself
        problems.add([Problem(what, name)])
    return table.num_rows, problems


def _file_problems(stream: BinaryIO, shard: ShardInfo) -> Iterator[Problem]:
    size = os.fstat(stream.fileno()).st_size
    if size != shard.bytes:
        yield Problem(f"the shard has {size} bytes, not {shard.bytes}", shard.name)
        return
    digest = xxhash.xxh3_128()
    stream.seek(0)
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    if digest.hexdigest() != shard.hash:
        yield Problem(
            "its bytes are not those that dataset.json names (the hash differs)", shard.name
        )


def _sample_problems(
    stream: BinaryIO,
    shard: str,
    row: dict[str, Any],
    maps: tuple[str, ...],
    left_out: Counter[str],
) -> Iterator[Problem]:
    members = [tars.Member(**member) for member in row["members"]]
    if not _row_fits(row, members):
        what = "its row of the index contradicts itself: the members are not in its span"
        yield Problem(what, shard, row["key"], row["offset"])
        return
    size = os.fstat(stream.fileno()).st_size
    for member in members:
        if (there := max(0, size - member.offset)) < member.size:
            what = f"{member.name} is cut short: {there} of {member.size} bytes are there"
            yield Problem(what, shard, row["key"], member.offset)
            return
    span = memoryview(os.pread(stream.fileno(), row["span"], row["offset"]))
    contents = {m.name: span[m.offset - row["offset"] :][: m.size] for m in members}
    image = contents[row["image_ext"]]
    if xxhash.xxh3_128_digest(image) != row["hash"]:
        what = "its image has changed (the hash differs)"
        yield Problem(what, shard, row["key"], row["image_offset"])
    elif xxhash.xxh3_64_intdigest(span) != row["check"]:
        what = "its bytes have changed (the check sum differs), though not its image"
        yield Problem(what, shard, row["key"], row["offset"])
    yield from _image_problems(bytes(image), shard, row, left_out)
    for name in maps:
        if name not in contents:
            what = f"it has no {name}, which dataset.json lists as a map of every sample"
            yield Problem(what, shard, row["key"], row["offset"])
            continue
        offset = next(member.offset for member in members if member.name == name)
        for what in _map_problems(bytes(contents[name]), row["height"], row["width"]):
            yield Problem(f"{name} {what}", shard, row["key"], offset)
    yield from _label_problems(contents.get("cls"), shard, row)


def _row_fits(row: dict[str, Any], members: list[tars.Member]) -> bool:
    """Whether the row's offsets agree with one another."""
    image = [(m.offset, m.size) for m in members if m.name == row["image_ext"]]
    end = row["offset"] + row["span"]
    return (
        image == [(row["image_offset"], row["image_size"])]
        and span_of(members) == (row["offset"], row["span"])
        and all(row["offset"] <= m.offset and 0 <= m.size <= end - m.offset for m in members)
    )


def _image_problems(
    data: bytes, shard: str, row: dict[str, Any], left_out: Counter[str]
) -> Iterator[Problem]:
    try:
        most = max(MAX_PIXELS, row["height"] * row["width"])
        height, width = decoding.decode(data, max_pixels=most).shape[:2]
        left_out.update(decoding.left_out(data))
    except ValueError as error:
        what = f"the image cannot be decoded: {error}"
        yield Problem(what, shard, row["key"], row["image_offset"])
        return
    if (height, width) != (row["height"], row["width"]):
        what = f"the image is {width}x{height}, the index says {row['width']}x{row['height']}"
        yield Problem(what, shard, row["key"], row["image_offset"])


def _map_problems(data: bytes, height: int, width: int) -> Iterator[str]:
    try:
        shape = map_pixels(data, max(MAX_PIXELS, height * width)).shape
    except ValueError as error:
        yield f"cannot be decoded: {error}"
        return
    if shape != (height, width):
        yield f"is {shape[1]}x{shape[0]}, the image {width}x{height}"


def _label_problems(
    content: memoryview | None, shard: str, row: dict[str, Any]
) -> Iterator[Problem]:
    try:
        label = None if content is None else int(bytes(content))
    except ValueError:
        return  # sets of other origin may store something else than a number here
    if label is not None and label != row["label"]:
        what = f"its label is {label}, the index says {row['label']}"
        yield Problem(what, shard, row["key"], row["offset"])


def _member_problems(
    stream: BinaryIO, shard: str, table: pa.Table, left_out: frozenset[str] | None
) -> Iterator[Problem]:
    """Compare the index with the members that are really in the tar, sample by sample."""
    stream.seek(0)
    found = {members[0].offset: (key, members) for key, members in tars.groups(stream, shard)}
    for row in table.select(["key", "offset", "members"]).to_pylist():
        listed = row["key"], [tars.Member(**member) for member in row["members"]]
        if found.pop(row["offset"], None) != listed:
            what = "the tar does not hold this sample's members where the index says"
            yield Problem(what, shard, row["key"], row["offset"])
    for offset, (key, members) in found.items():
        if left_out is not None and (
            belongs_to_no_image(members) or sample_place(shard, key, members) in left_out
        ):
            continue
        yield Problem("the index does not list this sample", shard, key, offset)
