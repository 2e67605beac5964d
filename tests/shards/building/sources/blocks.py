"""Read a source as a build does: block by block, in any process."""

from __future__ import annotations

import pickle

from shards.building.sources import Source
from shards.building.writer import NewSample
from shards.info import Skipped


def outcomes(source: Source, block_size: int = 3) -> dict[str, list[NewSample | Skipped | None]]:
    """What became of every item, by split; blocks and their reader travel as pickles."""
    read: dict[str, list[NewSample | Skipped | None]] = {}
    for split, items in source.splits.items():
        read[split] = []
        for start in range(0, len(items), block_size):
            stop = min(start + block_size, len(items))
            reader, block = pickle.loads(pickle.dumps((source.read, items.block(start, stop))))
            got = list(reader(block))
            assert len(got) == stop - start
            read[split] += got
    return read


def samples(source: Source, block_size: int = 3) -> dict[str, list[NewSample]]:
    """The same of a source all of whose items can be read."""
    read = outcomes(source, block_size)
    assert all(isinstance(s, NewSample) for split in read.values() for s in split), read
    return read  # type: ignore[return-value]
