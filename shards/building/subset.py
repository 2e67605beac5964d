"""New sets cut out of others: the same samples in other splits, or a small part of them.

Members are copied byte for byte into tars of the new set. A second index over the old tars would
need no copies, but only our own reader would know its splits: any other WebDataset reader would
find test images in `train-*.tar`. And a remote test split of 10,000 images out of 3 million would
be spread over all shards of the set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from shards.building.build import Progress, build_source
from shards.building.duplicates import hash_pairs, stands_alone
from shards.building.sources import Source
from shards.building.writer import NewSample
from shards.checking.whole_set import batches, open_index, rows_at
from shards.errors import ShardError
from shards.index import SCHEMA, whole
from shards.reading.reader import ShardSet, open_set
from shards.remote.stores import Store, store

_ROWS = 1024  # the number of rows that are Python objects at a time


def split_set(
    location: str | Path,
    out: str | Path,
    *,
    test_images: int | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
    from_split: str | None = None,
    name: str = "test",
    keep: bool = False,
    shard_size: int = 1000,
    processes: int | None = None,
    progress: Progress | None = None,
) -> ShardSet:
    """Divide the samples of a set anew: the set `out` has the splits train and test.

    Args:
        location: The set, a directory or a URI.
        out: The directory to make; nothing there is ever overwritten.
        test_images: The number of samples that are drawn; give either this or `test_fraction`.
        test_fraction: The fraction of the samples that is drawn.
        seed: The seed of the draw.
        from_split: The split to divide, while the others are left out; by default the samples of
            all splits are divided.
        name: The name of the split of the drawn samples, if it is not to be test.
        keep: Whether the splits other than `from_split` stay in the set as they are; what is left
            of `from_split` then keeps its name, which is train otherwise.
        shard_size, processes, progress: The same arguments as of `shards.building.build.build`.

    The draw depends on the images' bytes alone, not on how they lie in shards. An image that occurs
    more than once is not drawn, so that no test image is also a training image. Samples keep their
    order. Raises `ShardError` for bad input and when `out` holds anything else.
    """
    shard_set = open_set(location)
    kept, rest = _kept(shard_set, from_split) if keep else ([], "train")
    if name in (rest, *kept):
        raise ShardError(
            f"the drawn split cannot be called {name!r}, which another split of {out} is called"
        )
    rows = _rows(shard_set, None if from_split is None else [from_split, *kept])
    place = list(shard_set.splits).index
    others = {split: rows.splits == place(split) for split in kept}
    divided = ~np.isin(rows.splits, [place(split) for split in kept])
    total = int(divided.sum())
    count = _test_count(total, test_images, test_fraction)
    candidates = np.flatnonzero(stands_alone(rows.hashes) & divided)
    if not 1 <= count < total or count > len(candidates):
        raise ShardError(
            f"a {name} split of {count} of the {total} samples of {location} is not possible: "
            f"choose 1 to {min(len(candidates), total - 1)}, since only images that stand "
            "once can be drawn"
        )
    drawn = np.zeros(len(divided), dtype=bool)
    drawn[_drawn(rows.hashes, candidates, count, seed)] = True
    parameters = {"test_images": count, "seed": seed, "from_split": from_split}
    if name != "test" or keep:
        parameters |= {"name": name, "keep": keep}
    return _cut(
        "split", shard_set, out, rows, {rest: divided & ~drawn, name: drawn, **others},
        parameters, shard_size, processes, progress,
    )  # fmt: skip


def sample_set(
    location: str | Path,
    out: str | Path,
    *,
    count: int,
    split: str | None = None,
    seed: int = 0,
    shard_size: int = 1000,
    processes: int | None = None,
    progress: Progress | None = None,
) -> ShardSet:
    """Cut a small set out of a large one: `count` samples of each split, or all if it has fewer.

    Args:
        location: The set, a directory or a URI.
        out: The directory to make; nothing there is ever overwritten.
        count: The number of samples of each split.
        split: The only split to take samples from; by default samples of all splits are taken.
        seed: The seed of the draw, which depends on the images' bytes alone.
        shard_size, processes, progress: The same arguments as of `shards.building.build.build`.

    Samples keep their order. Raises `ShardError` for bad input and when `out` holds anything else.
    """
    if count < 1:
        raise ShardError(f"a sample of {count} is not possible: choose at least 1")
    shard_set = open_set(location)
    rows = _rows(shard_set, None if split is None else [split])
    chosen = {}
    for number, name in enumerate(shard_set.splits):
        drawn = _drawn(rows.hashes, np.flatnonzero(rows.splits == number), count, seed)
        if len(drawn):
            chosen[name] = np.isin(np.arange(len(rows.splits)), drawn)
    return _cut(
        "sample", shard_set, out, rows, chosen,
        {"count": count, "seed": seed, "split": split},
        shard_size, processes, progress,
    )  # fmt: skip


class _Rows(NamedTuple):
    """Some rows of an index.

    Attributes:
        numbers: The numbers of the rows, int64 [rows].
        splits: The places of the rows' splits in dataset.json, int16 [rows].
        hashes: The hashes of the rows' images, uint64 [rows, 2].
        keys: The hashes of the rows' keys, uint64 [rows].
    """

    numbers: np.ndarray
    splits: np.ndarray
    hashes: np.ndarray
    keys: np.ndarray


def _kept(shard_set: ShardSet, divided: str | None) -> tuple[list[str], str]:
    """The splits that stay as they are, and the name of what is left of the divided split."""
    if divided is None:
        raise ShardError(
            f"the other splits of {shard_set.where} can stay only beside one that is divided: name"
            " the split to divide"
        )
    return [split for split in shard_set.splits if split != divided], divided


def _rows(shard_set: ShardSet, only: Sequence[str] | None) -> _Rows:
    """All rows of a set, or the rows of some splits."""
    for name in only or ():
        if name not in shard_set.splits:
            there = ", ".join(shard_set.splits)
            raise ShardError(f"{shard_set.where} has no split {name!r}: it has {there}")
    names = pa.array(list(shard_set.splits))
    parts = []
    begin = 0
    index = open_index(shard_set.path, shard_set.info)
    for table in batches(index, ["split", "key", "hash"]):
        numbers = begin + np.arange(table.num_rows)
        begin += table.num_rows
        if only is not None:
            here = pc.is_in(table["split"], pa.array(list(only)))
            numbers, table = numbers[here.to_numpy()], table.filter(here)
        splits = pc.index_in(table["split"], names).to_numpy().astype(np.int16)
        keys = (xxhash.xxh3_64_intdigest(key.encode()) for key in table["key"].to_pylist())
        parts.append(
            _Rows(
                numbers,
                splits,
                hash_pairs(whole(table["hash"])),
                np.fromiter(keys, dtype=np.uint64, count=table.num_rows),
            )
        )
    return _Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _test_count(samples: int, images: int | None, fraction: float | None) -> int:
    if (images is None) == (fraction is None):
        raise ShardError("a new test split needs either a number of images or a fraction")
    if fraction is None:
        assert images is not None
        return images
    if not 0 < fraction < 1:
        raise ShardError(f"a test fraction of {fraction} is not between 0 and 1")
    return round(fraction * samples)


def _drawn(hashes: np.ndarray, candidates: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The `count` candidates, int64 rows of `hashes`, whose images have the least seeded hashes."""
    if not 0 <= seed < 1 << 64:
        raise ShardError(f"the seed {seed} is not in 0 to 2^64 - 1")
    content = hashes[candidates].tobytes()
    ranks = np.fromiter(
        (xxhash.xxh3_64_intdigest(content[i : i + 16], seed) for i in range(0, len(content), 16)),
        dtype=np.uint64,
        count=len(candidates),
    )
    return candidates[np.argsort(ranks, kind="stable")[:count]]


def _cut(
    kind: str,
    shard_set: ShardSet,
    out: str | Path,
    rows: _Rows,
    splits: dict[str, np.ndarray],
    parameters: dict[str, Any],
    shard_size: int,
    processes: int | None,
    progress: Progress | None,
) -> ShardSet:
    """Build a set whose splits hold the rows that are True in the split's mask, bool [rows]."""
    info = shard_set.info
    taken = rows.keys[np.logical_or.reduce(list(splits.values()))]
    location = shard_set.path
    if isinstance(location, Path):
        location = location.absolute()
    by_shard = len(np.unique(taken)) < len(taken)
    origin = {
        "name": info.name,
        "source": info.source,
        "parameters": info.parameters,
        "index_hash": info.index_hash,
        **({"conversions": info.conversions} if info.conversions else {}),
    }
    source = Source(
        name=kind,
        parameters={**parameters, "origin": origin},
        transform=info.transform,
        splits={
            name: Cut(location, info.index_hash, by_shard, rows.numbers[chosen])
            for name, chosen in splits.items()
        },
        read=copied,
        classes=info.classes,
        maps=info.maps,
    )
    return build_source(source, out, shard_size=shard_size, processes=processes, progress=progress)


@dataclass(frozen=True)
class Cut:
    """Work items: `rows` (int64, ascending) of the index of the set at `location`.

    `by_shard` says that some keys occur more than once, so that the name of the shard is put in
    front of each key.
    """

    location: str | Path
    index_hash: str
    by_shard: bool
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def block(self, start: int, stop: int) -> Cut:
        return Cut(self.location, self.index_hash, self.by_shard, self.rows[start:stop])


def copied(block: Cut) -> Iterator[NewSample]:
    """The samples of some rows, unchanged; raises `ShardError` for a damaged sample."""
    tars, index = _opened(block.location, block.index_hash)
    for first in range(0, len(block), _ROWS):
        table = rows_at(index, block.rows[first : first + _ROWS], SCHEMA.names)
        for shard, rows in groupby(table.to_pylist(), key=lambda row: row["shard"]):
            prefix = f"{shard.removesuffix('.tar')}/" if block.by_shard else ""
            with tars.open(shard) as stream:
                for row in rows:
                    stream.seek(row["offset"])
                    yield _sample(stream.read(row["span"]), row, prefix, f"{tars.uri}/{shard}")


@lru_cache(maxsize=1)
def _opened(location: str | Path, index_hash: str) -> tuple[Store, pq.ParquetFile]:
    shard_set = open_set(location)
    if shard_set.index_hash != index_hash:
        raise ShardError(f"{location} has become another set while it was read")
    return store(shard_set.tars), open_index(location, shard_set.info)


def _sample(span: bytes, row: dict[str, Any], prefix: str, where: str) -> NewSample:
    if xxhash.xxh3_64_intdigest(span) != row["check"]:
        raise ShardError(
            f"{where}, key {row['key']!r}, byte {row['offset']}: the sample has changed since it "
            "was indexed (its hash differs); `gencomp shards verify` lists all the damage"
        )
    places = ((m["name"], m["offset"] - row["offset"], m["size"]) for m in row["members"])
    return NewSample(
        key=prefix + row["key"],
        members={name: span[begin : begin + size] for name, begin, size in places},
        image_ext=row["image_ext"],
        width=row["width"],
        height=row["height"],
        label=row["label"],
        source=row["source"],
    )
