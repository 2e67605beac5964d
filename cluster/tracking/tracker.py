"""What a tracker of experiments must be able to do for one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from cluster.logs.metrics_log import STAMP, Place, Row

# Stopped is a run that waits at a checkpoint, and a trial that was stopped early.
Outcome = Literal["finished", "stopped", "failed"]
NOWHERE: Place = (-1, 0)


@dataclass(frozen=True)
class Group:
    """A sweep, under which its trials stand.

    Attributes:
        id: the id that gencomp gave the sweep.
        name: the name that is shown.
    """

    id: str
    name: str


@dataclass(frozen=True)
class Described:
    """A run as a tracker shows it.

    Attributes:
        id: the id that gencomp gave the run once and for all.
        project: the name of the tracker's project or experiment.
        name: the name that is shown, which need not be unique.
        path: the run's directory.
        values: the resolved recipe by dotted key, with the hashes of the data.
        group: the sweep to which the run belongs, if there is one.
    """

    id: str
    project: str
    name: str
    path: Path
    values: Mapping[str, Any] = field(default_factory=dict)
    group: Group | None = None


@dataclass(frozen=True)
class Held:
    """What a tracker has taken for good.

    Attributes:
        row: the place of the last row.
        grid: the name of the last grid; empty if there is none.
    """

    row: Place
    grid: str


class Tracker(Protocol):
    """A run in a tracker, found by its id or made. Each method may raise any error.

    Attributes:
        where: a few words that tell a reader where to find the run.
    """

    where: str

    def held(self) -> Held | None:
        """What of the earlier attempts was taken; None if that is not known, or is as was noted."""
        ...

    def has_row(self, row: Row) -> bool:
        """Whether a row that may have been sent must not be sent again."""
        ...

    def has_grid(self, path: Path) -> bool:
        """Whether a grid that may have been sent must not be sent again."""
        ...

    def log_rows(self, rows: Sequence[Row], number: int) -> None:
        """Log rows of the metrics log, all or none.

        Args:
            rows: at most `MOST_METRICS` metrics in rows of growing steps.
            number: how many rows and grids were sent before.
        """
        ...

    def log_grid(self, path: Path, step: int, number: int) -> None:
        """Attach a grid of samples, a PNG file; `number` is as in `log_rows`."""
        ...

    def log_result(self, values: Mapping[str, float], step: int, seconds: float) -> None:
        """Log the metrics of an evaluation.

        Args:
            values: the metrics by name.
            step: the step of the measured checkpoint.
            seconds: the time of the evaluation, in seconds since 1970.
        """
        ...

    def attach(self, path: Path, folder: str) -> None:
        """Attach a file under its own name in a folder, in place of an earlier one."""
        ...

    def end(self, outcome: Outcome) -> None:
        """Say how the run has ended, and let go of it."""
        ...


MOST_METRICS = 1000


def metrics_of(row: Row) -> dict[str, float]:
    """The metrics of a row; what was not finite is NaN."""
    return {
        name: float("nan") if value is None else float(value)
        for name, value in row.items()
        if name not in STAMP and isinstance(value, int | float | None)
    }
