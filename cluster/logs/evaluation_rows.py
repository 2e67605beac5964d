"""The evaluations in a metrics log: each is a row whose names begin with the split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def to_row(metrics: Mapping[str, float], split: str) -> dict[str, float]:
    """The metrics of an evaluation under the names of the log, such as `test/mse`."""
    return {f"{split}/{name}": value for name, value in metrics.items()}


def from_row(row: Mapping[str, Any], split: str) -> dict[str, Any]:
    """The metrics of an evaluation by their own names; a row of training has none.

    A value that was not finite is None.
    """
    prefix = f"{split}/"
    return {
        name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)
    }
