"""How commands take the location of a shard set and print a line about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from shards.info import DatasetInfo

Location = Annotated[str, tyro.conf.arg(metavar="LOCATION")]


def print_set(where: str | Path, info: DatasetInfo) -> None:
    """Print one line about a set: its location, its samples, its size and its index."""
    counts = ", ".join(f"{split} {samples}" for split, samples in info.counts.items())
    size = sum(shard.bytes for split in info.splits.values() for shard in split.shards)
    print(f"{where}: {counts} samples, {megabytes(size)}; index {info.index_hash[:16]}")


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
