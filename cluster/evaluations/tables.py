"""Results as tables of words, ready to be printed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gencomp.evaluation import scales


class Table(NamedTuple):
    """A table of words; every row is as long as the header.

    The remark is what a reader must know before the numbers; it is empty if there is nothing.
    """

    header: list[str]
    rows: list[list[str]]
    title: str = ""
    remark: str = ""


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
        counts = [f"{entry[key]} {word}" for key, word in counted.items() if key in entry]
        interval = _interval(entry["interval"]) if "interval" in entry else ""
        rows.append([name, scales.UNITS.get(name, ""), f"{entry['value']:.6g}"])
        rows[-1] += [interval, ", ".join(counts)]
    return Table(
        ["metric", "unit", "value", "95 % interval", "of"], rows, title, scales.negative(metrics)
    )


def _interval(ends: Sequence[float | None] | None) -> str:
    """An interval in words; an end that is None in a JSON file is infinite."""
    if ends is None:
        return "unknown"
    low, high = (math.inf if end is None else end for end in ends)
    return f"{low:.6g} to {high:.6g}"


def finite(value: Any) -> Any:
    """A value for JSON, which has no infinity: an infinite PSNR, for example, becomes None."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
