"""index.parquet: rows come back, hashes mean the content, damage is refused."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import ShardError
from shards.index import (
    SCHEMA,
    IndexReader,
    IndexWriter,
    by_shard,
    map_index,
    row_of,
    shard_digest,
    shard_table,
    span_of,
)
from shards.tars import Member
from tests.shards.indexes import Shards, random_row, random_shards, write_set


def read_index(path: Path, bytes_hash: str) -> pa.Table:
    """The whole index of a file."""
    return IndexReader(map_index(path), str(path), bytes_hash).table()


def logical_hash(table: pa.Table) -> str:
    """The index hash of a whole index: the sha256 of the digests of its shards, in file order."""
    total = hashlib.sha256()
    for part in by_shard(table):
        total.update(shard_digest(part))
    return total.hexdigest()


def as_records(shards: Shards, split: str | None = None) -> list[dict[str, Any]]:
    rows = [row for name, parts in shards.items() for part in parts for row in part]
    return [
        {**row._asdict(), "members": [member._asdict() for member in row.members]}
        for row in rows
        if split in (None, row.split)
    ]


@settings(max_examples=30)
@given(random_shards(), st.sampled_from([1, 3, 7, 1 << 17]))
def test_rows_come_back(found: Shards, group_rows: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        info = write_set(found, Path(directory), group_rows=group_rows)
        path = Path(directory) / "index.parquet"
        groups = pq.ParquetFile(path).metadata
        assert all(
            groups.row_group(i).num_rows == group_rows for i in range(groups.num_row_groups - 1)
        )
        assert read_index(path, info.index_bytes_hash).to_pylist() == as_records(found)
        reader = IndexReader(map_index(path), "it", info.index_bytes_hash)
        for split in [*found, "none"]:
            expected = as_records(found, split)
            assert reader.table(split=split).to_pylist() == expected
            pieces = [row for table in reader.tables(["key"], split) for row in table.to_pylist()]
            assert pieces == [{"key": row["key"]} for row in expected]


@settings(max_examples=30)
@given(random_shards())
def test_the_index_hash_means_the_content(found: Shards) -> None:
    with tempfile.TemporaryDirectory() as directory:
        info = write_set(found, Path(directory))
        table = read_index(Path(directory) / "index.parquet", info.index_bytes_hash)
        assert logical_hash(table) == info.index_hash
        # However it is cut and encoded.
        assert (
            logical_hash(pa.concat_tables([table.slice(0, 3), table.slice(3)])) == info.index_hash
        )
        assert sum(part.num_rows for part in by_shard(table)) == table.num_rows


def test_every_column_counts_in_the_hash() -> None:
    span = bytes(range(100))
    members = [Member("png", 512, 40), Member("cls", 560, 52)]
    row = row_of(
        "train", "a.tar", "k", members, span,
        image_ext="png", width=3, height=4, label=7, source="s",
    )  # fmt: skip
    before = shard_digest(shard_table([row]))
    changes: dict[str, Any] = {
        "split": "test", "shard": "b.tar", "key": "l", "image_ext": "jpg", "offset": 513,
        "span": 99, "check": 5, "image_offset": 513, "image_size": 41, "width": 4, "height": 5,
        "label": None, "source": "t", "hash": bytes(16), "members": members[:1],
    }  # fmt: skip
    assert set(changes) == set(SCHEMA.names)
    digests = {shard_digest(shard_table([row._replace(**{k: v})])) for k, v in changes.items()}
    assert len(digests | {before}) == len(changes) + 1


def test_a_row_describes_its_span() -> None:
    members = [Member("cls", 512, 1), Member("png", 1536, 40), Member("json", 2560, 3)]
    assert span_of(members) == (512, 2051)
    span = bytes(i % 251 for i in range(2051))
    row = row_of(
        "train", "a.tar", "k", members, span,
        image_ext="png", width=3, height=4, label=None, source="s",
    )  # fmt: skip
    assert (row.offset, row.span, row.image_offset, row.image_size) == (512, 2051, 1536, 40)
    assert row.check == xxhash.xxh3_64_intdigest(span)
    assert row.hash == xxhash.xxh3_128_digest(span[1024:1064])


def test_the_same_shards_make_the_same_bytes(tmp_path: Path) -> None:
    table = shard_table([row for part in _some()["train"] for row in part])
    hashes = []
    for name in ("a", "b"):
        writer = IndexWriter(tmp_path / name)
        writer.add(table, b"digest")
        hashes.append(writer.close())
    assert hashes[0] == hashes[1]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_discarded_index_leaves_nothing(tmp_path: Path) -> None:
    writer = IndexWriter(tmp_path / "index.parquet")
    writer.add(shard_table(_some()["train"][0]), b"digest")
    writer.discard()
    assert not list(tmp_path.iterdir())


def test_damage_is_refused_wherever_it_is(tmp_path: Path) -> None:
    info = write_set(_some(), tmp_path)
    path = tmp_path / "index.parquet"
    whole = path.read_bytes()
    for place in range(0, len(whole), 41):  # some flips would hang the Parquet reader
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        with pytest.raises(ShardError, match=r"index\.parquet is damaged or of another set"):
            read_index(path, info.index_bytes_hash)
    for data in (b"", whole[:-1]):
        path.write_bytes(data)
        with pytest.raises(ShardError, match=r"index\.parquet is damaged or of another set"):
            read_index(path, info.index_bytes_hash)
    path.unlink()
    with pytest.raises(ShardError, match=r"has no index\.parquet: it is no whole shard set"):
        read_index(path, info.index_bytes_hash)


def test_what_is_no_parquet_is_named(tmp_path: Path) -> None:
    content = b"not a Parquet file"
    (tmp_path / "index.parquet").write_bytes(content)
    with pytest.raises(ShardError, match=r"index\.parquet is damaged: .*Parquet"):
        read_index(tmp_path / "index.parquet", xxhash.xxh3_128_hexdigest(content))


def _some() -> Shards:
    rng = np.random.default_rng(1)
    return {"train": [[random_row(rng, "train", 0, i, False, 9, False) for i in range(20)]]}
