"""Shard sets: WebDataset tars with a Parquet index, read in an exact order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shards.reading.reader import ShardSet

__all__ = ["open_set"]


def open_set(location: str | Path) -> ShardSet:
    """Open the shard set in a directory or at a URI; `ShardError` when there is none."""
    from shards.reading.reader import (
        open_set as open_,  # pyarrow is imported here, so that `gencomp --help` need not wait
    )

    return open_(location)
