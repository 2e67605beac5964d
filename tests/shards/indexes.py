"""Random indexes without tars, for the tests of the index and of its columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from shards.index import SCHEMA, IndexWriter, Row, shard_digest, shard_table
from shards.info import DatasetInfo, ShardInfo, SplitInfo, Transform, write_info
from shards.tars import Member

Shards = dict[str, list[list[Row]]]


@st.composite
def random_shards(draw: st.DrawFn, maps: bool = False) -> Shards:
    """Rows by split and shard, some shards empty, as a set may have them."""
    splits = draw(st.sampled_from([["train"], ["test", "train"], ["a b/c", "d"]]))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    alike = draw(st.booleans())
    labels = draw(st.sampled_from([None, 1, 300, 1 << 40]))
    sizes = draw(st.lists(st.integers(0, 6), min_size=1, max_size=4))
    return {
        split: [
            [random_row(rng, split, number, i, alike, labels, maps) for i in range(size)]
            for number, size in enumerate(sizes)
        ]
        for split in splits
    }


def random_row(
    rng: np.random.Generator,
    split: str,
    shard: int,
    place: int,
    alike: bool,
    labels: int | None,
    maps: bool,
) -> Row:
    """A random row; `alike` asks for keys of one length, as hashes have, and an image alone."""
    offset = 512 + place * (1 << int(rng.integers(20, 40)))
    key = f"{rng.integers(1 << 31):08x}" if alike else "schlüssel"[: rng.integers(10)] + f"{place}"
    names = ["jpg"] if alike else list(rng.permutation(["jpg", "cls", "json"]))
    members = []
    at = offset
    for name in [*names, *(["label.png", "instance.png"] if maps else [])]:
        members.append(Member(str(name), at, int(rng.integers(1, 70_000))))
        at += -(-members[-1].size // 512) * 512 + 512
    image = next(member for member in members if member.name == "jpg")
    return Row(
        split=split,
        shard=f"{split}-{shard:06d}.tar".replace("/", "-"),
        key=key,
        image_ext="jpg",
        offset=offset,
        span=members[-1].offset + members[-1].size - offset,
        check=int(rng.integers(1 << 64, dtype=np.uint64)),
        image_offset=image.offset,
        image_size=image.size,
        width=64,
        height=int(rng.integers(1, 4000)),
        label=None if labels is None or rng.random() < 0.2 else int(rng.integers(labels)),
        source=f"{key}.jpg",
        hash=rng.bytes(16),
        members=members,
    )


def write_set(
    shards: Shards, directory: Path, maps: bool = False, group_rows: int = 1 << 17
) -> DatasetInfo:
    """index.parquet and dataset.json of rows by split and shard; there are no tars."""
    directory.mkdir(parents=True, exist_ok=True)
    writer = IndexWriter(directory / "index.parquet", group_rows)
    splits = {}
    for split, parts in shards.items():
        found = []
        for number, rows in enumerate(parts):
            table = shard_table(rows)
            writer.add(table, shard_digest(table))
            name = rows[0].shard if rows else f"empty-{number}.tar"
            found.append(ShardInfo(name=name, bytes=1, samples=len(rows), hash=""))
        splits[split] = SplitInfo(samples=sum(map(len, parts)), shards=found)
    return _described(splits, writer, directory, ["label.png", "instance.png"] if maps else [])


def large_set(directory: Path, rows: int, shard_rows: int) -> DatasetInfo:
    """A set of images alone in their samples, large enough for its columns to be shared."""
    rng = np.random.default_rng(0)
    writer = IndexWriter(directory / "index.parquet")
    shards = []
    for number in range(rows // shard_rows):
        name = f"train-{number:06d}.tar"
        offset, size = np.arange(shard_rows) * 8192 + 512, rng.integers(2000, 7000, shard_rows)
        key = [f"{place:040x}" for place in rng.integers(1 << 60, size=shard_rows).tolist()]
        member = pa.StructArray.from_arrays(
            [pa.array(["jpg"] * shard_rows), pa.array(offset), pa.array(size)],
            names=["name", "offset", "size"],
        )
        same = {"split": "train", "shard": name, "image_ext": "jpg", "source": "synthetic"}
        columns = {
            **{field: [value] * shard_rows for field, value in same.items()},
            "key": key, "offset": offset, "span": size, "image_offset": offset,
            "image_size": size, "width": size, "height": size, "label": size % 10,
            "check": rng.integers(1 << 64, size=shard_rows, dtype=np.uint64),
            "hash": [bytes(16)] * shard_rows,
            "members": pa.ListArray.from_arrays(np.arange(shard_rows + 1, dtype=np.int32), member),
        }  # fmt: skip
        writer.add(pa.table(columns, schema=SCHEMA), b"")
        shards.append(ShardInfo(name=name, bytes=1, samples=shard_rows, hash=""))
    return _described({"train": SplitInfo(samples=rows, shards=shards)}, writer, directory, [])


def _described(
    splits: dict[str, SplitInfo], writer: IndexWriter, directory: Path, maps: list[str]
) -> DatasetInfo:
    index_hash, bytes_hash = writer.close()
    info = DatasetInfo(
        name="random",
        source="test",
        parameters={},
        transform=Transform(size=None, geometry="none", storage="original"),
        splits=splits,
        maps=maps,
        index_hash=index_hash,
        index_bytes_hash=bytes_hash,
        created_by="a test",
    )
    write_info(info, directory)
    return info
