"""Results as tables of words, ready to be printed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Table(NamedTuple):
    """A table of words; every row is as long as the header."""

    header: list[str]
    rows: list[list[str]]
    title: str = ""


class Collected(NamedTuple):
    """The result that was merged from parts, in words.

    Attributes:
        tables: the tables that show the result.
        notes: sentences to print below the tables.
        warnings: sentences about what the reader must not overlook.
        result: the file that holds the result.
        images: the number of images behind the result.
        missing: the numbers of the blocks without a part.
    """

    tables: list[Table]
    notes: list[str]
    warnings: list[str]
    result: Path
    images: int
    missing: list[int]


def metrics_table(
    title: str, metrics: Mapping[str, dict[str, Any]], counted: Mapping[str, str]
) -> Table:
    """Metrics with their intervals, and the numbers of what each is a mean of.

    Args:
        title: the title of the table.
        metrics: name -> entry with "value", and "interval" where there is one.
        counted: key of an entry that is a count -> the word for what is counted.
    """
    rows = []
    for name, entry in metrics.items():
        low, high = entry.get("interval", (None, None))
        interval = "" if low is None else f"{low:.6g} to {high:.6g}"
        counts = [f"{entry[key]} {word}" for key, word in counted.items() if key in entry]
        rows.append([name, f"{entry['value']:.6g}", interval, ", ".join(counts)])
    return Table(["metric", "value", "95 % interval", "of"], rows, title)


def finite(value: Any) -> Any:
    """A value for JSON, which has no infinity: an infinite PSNR, for example, becomes None."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
