"""Results as tables of words, for whoever prints them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple


class Table(NamedTuple):
    """A table of words; every row is as long as the header."""

    header: list[str]
    rows: list[list[str]]
    title: str = ""


class Collected(NamedTuple):
    """What was merged, to be shown.

    Attributes:
        tables: the result in words.
        notes: sentences below the tables.
        warnings: sentences about what the reader must not overlook.
        result: the file that holds the result.
        images: the number of images that it is made of.
        missing: the numbers of the blocks without a part.
    """

    tables: list[Table]
    notes: list[str]
    warnings: list[str]
    result: Path
    images: int
    missing: list[int]


def finite(value: Any) -> Any:
    """JSON has no infinity: an infinite PSNR becomes null."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
