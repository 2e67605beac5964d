"""Check an index against dataset.json in one pass, which gives its rows shard by shard."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shards.building.duplicates import hash_pairs
from shards.checking.verify_shard import Problem
from shards.checking.whole_set import shard_tables
from shards.index import FILE_NAME as INDEX_NAME
from shards.index import SCHEMA, shard_digest, whole
from shards.info import FILE_NAME as INFO_NAME
from shards.info import DatasetInfo, ShardInfo


class IndexPass:
    """One pass over an index: the iterator gives each shard with its rows.

    After the pass, `hashes` (uint64 [rows, 2]) and `splits` (int16 [rows], the places of the splits
    in `info.splits`, -1 for an unknown split) are what images are compared by, and `problems` lists
    what is wrong with the index.
    """

    def __init__(self, index: pq.ParquetFile, info: DatasetInfo) -> None:
        self.hashes = np.empty((index.metadata.num_rows, 2), dtype=np.uint64)
        self.splits = np.empty(index.metadata.num_rows, dtype=np.int16)
        self.problems: list[Problem] = []
        self._index = index
        self._info = info

    def __iter__(self) -> Iterator[tuple[ShardInfo, pa.Table]]:
        listed = [(n, shard) for n, split in self._info.splits.items() for shard in split.shards]
        expected = {(split, shard.name): (i, shard) for i, (split, shard) in enumerate(listed)}
        missing = dict(expected)
        digest = hashlib.sha256()
        last = row = 0
        for table in shard_tables(self._index):
            split, name = table["split"][0].as_py(), table["shard"][0].as_py()
            digest.update(shard_digest(table))
            row = self._keep(table, split, row)
            if missing.pop((split, name), None) is None:
                twice = (split, name) in expected
                what = "its rows do not stand together" if twice else f"{INFO_NAME} lacks it"
                self._problem(what, split, name)
                continue
            place, shard = expected[split, name]
            if place < last:
                self._problem(f"it stands in another place than in {INFO_NAME}", split, name)
            last = max(last, place)
            if table.num_rows != shard.samples:
                what = f"it has {table.num_rows} rows, {INFO_NAME} says {shard.samples} samples"
                self._problem(what, split, name)
            yield shard, table
        for (split, name), (_, shard) in missing.items():
            if shard.samples:
                self._problem("it has no rows", split, name)
            yield shard, SCHEMA.empty_table()
        if digest.hexdigest() != self._info.index_hash:
            what = f"its content is not the one that {INFO_NAME} names"
            self.problems.append(Problem(what, INDEX_NAME))

    def _keep(self, table: pa.Table, split: str, row: int) -> int:
        end = row + table.num_rows
        self.hashes[row:end] = hash_pairs(whole(table["hash"]))
        names = list(self._info.splits)
        self.splits[row:end] = names.index(split) if split in names else -1
        return end

    def _problem(self, what: str, split: str, shard: str) -> None:
        self.problems.append(Problem(f"split {split!r}, shard {shard}: {what}", INDEX_NAME))
