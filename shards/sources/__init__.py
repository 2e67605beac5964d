"""Where the images of a new shard set come from, one source a file.

A source says what its splits hold as lists of small work items, and how one item becomes a
sample. Items are independent of one another, so they can be encoded in any process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shards.info import Transform
from shards.writer import NewSample


@dataclass(frozen=True)
class Source:
    """A data set about to be built.

    parameters: everything that decides the content, for `dataset.json`.
    splits: the work items of each split, in the order of the rows.
    encode: one item to a sample; None when the item is left out by the source's rule;
        `ShardError` when it cannot be read.
    classes: names of the labels.
    """

    name: str
    parameters: dict[str, Any]
    transform: Transform
    splits: Mapping[str, Sequence[Any]]
    encode: Callable[[Any], NewSample | None]
    classes: list[str] = field(default_factory=list)
