"""A metric of a run with its interval."""

from __future__ import annotations

from typing import NamedTuple


class Measured(NamedTuple):
    """A value with its 95 % interval, where that is known."""

    value: float
    interval: tuple[float, float] | None = None
