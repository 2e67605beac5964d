"""Check a shard set: its description, its index, and every byte of its tars."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from shards.building.duplicates import find_duplicates
from shards.checking.verify_index import IndexPass
from shards.checking.verify_shard import (
    MOST_KEPT,
    Problem,
    Problems,
    ShardTask,
    check_shard,
    packed,
)
from shards.checking.whole_set import open_index, processes_for, rows_at
from shards.errors import ShardError
from shards.index import FILE_NAME as INDEX_NAME
from shards.info import FILE_NAME as INFO_NAME
from shards.info import DatasetInfo
from shards.pool import in_order
from shards.reading.files import place_of
from shards.reading.reader import open_set

Progress = Callable[[str, int, int], None]

_EXAMPLES = 3  # the number of shown images that occur twice in a split


@dataclass(frozen=True)
class Findings:
    """What `verify` looked at and what it found.

    `found` is the number of problems; `problems` has at most `MOST_KEPT` of them. `notes` are facts
    that are worth knowing, but not wrong.
    """

    location: str
    samples: int
    shards: int
    bytes: int
    found: int
    problems: list[Problem]
    notes: list[str]

    @property
    def ok(self) -> bool:
        return self.found == 0


def verify(
    location: str | Path, processes: int | None = None, progress: Progress | None = None
) -> Findings:
    """Check the set at a directory or URI, in `processes` (by default as many as pay off).

    These are checked:

    - `index.parquet` against `dataset.json`: hashes, splits, shards and counts.
    - Every shard: its size and its hash, its members against the index, the hashes of every sample,
      and that images and maps decode to the size in the index.
    - Images that occur in two splits, which is a problem, or twice in one split, which is a note.

    Every problem is named with shard, key and byte offset. The index is read in batches of rows and
    the tars one by one; the only memory that grows with the set is 50 bytes for each sample, by
    which images are compared. `progress` is called with ("samples", samples done, samples in all).
    When the index is damaged, nothing else is checked. Raises `ShardError` when there is no set.
    """
    info = open_set(location).info
    workers = processes_for(info, processes)
    problems = Problems()
    problems.add(_info_problems(info))
    samples, notes = 0, list[str]()
    try:
        index = open_index(location, info)
    except ShardError as error:
        problems.add([Problem(str(error), INDEX_NAME)])
    else:
        samples = index.metadata.num_rows
        rows = IndexPass(index, info)
        problems.merge(_check_shards(location, info, rows, workers, progress))
        problems.add(rows.problems)
        across, repeated = _compare_images(index, rows, list(info.splits))
        problems.merge(across)
        left_out = sorted(problems.left_out.items())
        notes = [f"{what}: {count} of {samples} images" for what, count in left_out]
        notes += repeated
    shards = [shard for split in info.splits.values() for shard in split.shards]
    size = sum(shard.bytes for shard in shards)
    return Findings(str(location), samples, len(shards), size, problems.found, problems.kept, notes)


def _info_problems(info: DatasetInfo) -> Iterator[Problem]:
    """The contradictions inside `dataset.json`."""
    seen: set[str] = set()
    for name, split in info.splits.items():
        if split.samples != (total := sum(shard.samples for shard in split.shards)):
            what = f"split {name!r} has {split.samples} samples, its shards have {total}"
            yield Problem(what, INFO_NAME)
        for shard in split.shards:
            if shard.name in seen:
                yield Problem(f"it lists the shard {shard.name} twice", INFO_NAME)
            seen.add(shard.name)


def _check_shards(
    location: str | Path,
    info: DatasetInfo,
    rows: IndexPass,
    workers: int,
    progress: Progress | None,
) -> Problems:
    place, maps = place_of(location, info.location), tuple(info.maps)
    left_out = _left_out(info)
    tasks = (
        ShardTask(place, shard, maps, packed(table), left_out(shard.name)) for shard, table in rows
    )
    problems = Problems()
    done = 0

    def show(counts: Sequence[int] = ()) -> None:
        if progress is not None:
            progress("samples", done + sum(counts), len(rows.hashes))

    with closing(in_order(check_shard, tasks, workers, show)) as results:
        for samples, found in results:
            problems.merge(found)
            done += samples
            show()
    return problems


def _left_out(info: DatasetInfo) -> Callable[[str], frozenset[str] | None]:
    """A function from a shard to the places of the samples that its index leaves out.

    It gives None for a set of our own tars, whose index has all samples.
    """
    if info.source != "wds":
        return lambda _: None
    places: dict[str, set[str]] = {}
    for skipped in info.skipped:
        places.setdefault(skipped.path.partition(", key ")[0], set()).add(skipped.path)
    return lambda shard: frozenset(places.get(shard, ()))


def _compare_images(
    index: pq.ParquetFile, rows: IndexPass, splits: list[str]
) -> tuple[Problems, list[str]]:
    """The problems and the notes about images that occur more than once.

    An image in two splits is a problem, since it could be used for training and for testing. An
    image that occurs twice in one split is a note.
    """
    across, within = find_duplicates(rows.hashes, rows.splits)
    pairs = across[:MOST_KEPT]
    by_split = [within[rows.splits[within[:, 0]] == number] for number in range(len(splits))]
    shown = np.unique(np.concatenate([pairs, *(copies[:_EXAMPLES] for copies in by_split)]))
    columns = ["split", "shard", "key", "image_offset"]
    place = dict(zip(shown.tolist(), rows_at(index, shown, columns).to_pylist(), strict=True))
    problems = Problems(
        len(across), [_in_two_splits(place[a], place[b]) for a, b in pairs.tolist()]
    )
    notes = []
    for name, copies in zip(splits, by_split, strict=True):
        if len(copies):
            examples = (
                f"{place[b]['key']!r} that of {place[a]['key']!r}"
                for a, b in copies[:_EXAMPLES].tolist()
            )
            notes.append(
                f"split {name!r}, repeated images: {len(copies)}, such as {', '.join(examples)}"
            )
    return problems, notes


def _in_two_splits(first: dict[str, Any], second: dict[str, Any]) -> Problem:
    return Problem(
        f"the same image is in split {second['split']!r}, and in split {first['split']!r} as "
        f"{first['key']!r} ({first['shard']}, byte {first['image_offset']})",
        second["shard"],
        second["key"],
        second["image_offset"],
    )
