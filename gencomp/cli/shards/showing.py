"""How commands take the location of a shard set and print a line about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from shards.info import DatasetInfo

_MOST_SKIPPED = 10  # skipped inputs that are printed; dataset.json lists all of them

Location = Annotated[str, tyro.conf.arg(metavar="LOCATION")]


def print_set(where: str | Path, info: DatasetInfo) -> None:
    """Print one line about a set: its location, its samples, its size and its index."""
    counts = ", ".join(f"{split} {samples}" for split, samples in info.counts.items())
    size = sum(shard.bytes for split in info.splits.values() for shard in split.shards)
    print(f"{where}: {counts} samples, {megabytes(size)}; index {info.index_hash[:16]}")


def print_skipped(info: DatasetInfo) -> None:
    """Print what a set leaves out and why, one input a line."""
    for one in info.skipped[:_MOST_SKIPPED]:
        print(f"skipped {one.path}: {one.reason}")
    if len(info.skipped) > _MOST_SKIPPED:
        print(f"and {len(info.skipped) - _MOST_SKIPPED} more skipped, which dataset.json lists")


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
