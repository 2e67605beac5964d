"""Gives a tracker what a run's directory holds and the tracker lacks.

Before rows are sent, the record says that they may have been sent, and afterwards that they were.
When a process dies, or a connection breaks, between the two, the next one asks the tracker for each
of these rows. A step that a resumed run computes again is not sent again. So MLflow gets every row
exactly once, as long as the lock holds that keeps a run to one driver; so do W&B's offline files
and Trackio's directory, and a W&B server gets every row at most once (see `wandb_runs`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from cluster.logs import metrics_log
from cluster.logs.metrics_log import Row, place
from cluster.runs import Run
from cluster.tracking import choice, record
from cluster.tracking.choice import Name
from cluster.tracking.record import Record
from cluster.tracking.tracker import (
    MOST_METRICS,
    Described,
    Group,
    Outcome,
    Tracker,
    metrics_of,
)

Connect = Callable[[Name, Described], Tracker]


class Follower:
    """Follows one run for a tracker.

    Args:
        run: the run, whose directory the caller holds.
        name: the tracker's name.
        may_write: called before anything is sent; raises if another process has taken the run over.
        group: the sweep to which the run belongs, if there is one.
        connect: what opens the run in the tracker.
    """

    def __init__(
        self,
        run: Run,
        name: Name,
        may_write: Callable[[], None],
        group: Group | None = None,
        connect: Connect = choice.connect,
    ) -> None:
        self._run, self._name, self._may_write = run, name, may_write
        self._group, self._connect = group, connect
        self._tracker: Tracker | None = None
        self._known: Record | None = None
        self._seen: tuple[int, int] | None = None
        self._asked = False

    @property
    def where(self) -> str | None:
        """A few words on where the run is found in the tracker; None before it was opened."""
        return self._tracker.where if self._tracker else None

    def send(self) -> None:
        """Send what the tracker lacks. After any error, a later call sends the rest."""
        try:
            self._send_rows()
            self._send_grids()
        except BaseException:
            self._seen, self._tracker = None, None
            raise

    def end(self, outcome: Outcome) -> None:
        """Send what the tracker lacks, and tell it how the run has ended."""
        if self._record.ended != outcome:
            self.opened()
        self.send()
        if self._tracker is not None:
            self._tracker.end(outcome)
            self._note(ended=outcome)
            self._tracker = None

    def opened(self) -> Tracker:
        """The run in the tracker."""
        if self._tracker is None:
            self._may_write()
            described = Described(
                id=self._record.id,
                project=self._record.project,
                name=self._run.path.resolve().name,
                path=self._run.path,
                values=self._run.identity(),
                group=self._group,
            )
            tracker = self._connect(self._name, described)
            self._note(**self._held_by(tracker), ended=None)
            self._note(began=self._record.sent, began_grid=self._record.grid)
            self._asked = True
            self._tracker = tracker
        return self._tracker

    def _held_by(self, tracker: Tracker) -> dict[str, Any]:
        """What the record must say now, where an earlier process died.

        With the process, its tracker may have lost what it had taken but not yet written.
        """
        if self._asked or self._record.ended is not None or (held := tracker.held()) is None:
            return {}
        row = max(self._record.began, held.row)
        grid = max(self._record.began_grid, held.grid)
        return {"sent": row, "sending": row, "grid": grid, "sending_grid": grid}

    @property
    def _record(self) -> Record:
        if self._known is None:
            self._may_write()
            self._known = record.found_or_made(self._run.path, self._name)
        return self._known

    def _send_rows(self) -> None:
        seen = _signature(self._run.metrics)
        if seen == self._seen:
            return
        if self._unsent_rows():
            self.opened()  # where the record may learn that more is lacking
        for rows in _batches(self._unsent_rows()):
            tracker = self.opened()
            last, before = place(rows[-1]), self._record.sending
            lacking = [row for row in rows if place(row) > before or not tracker.has_row(row)]
            number = self._record.numbered
            self._note(sending=max(last, before), numbered=number + len(lacking))
            if lacking:
                tracker.log_rows(lacking, number)
            self._note(sent=last)
        self._seen = seen

    def _unsent_rows(self) -> list[Row]:
        """The rows after the last one that was sent, oldest first."""
        sent = self._record.sent
        newest = takewhile(
            lambda row: place(row) > sent, metrics_log.newest_first(self._run.metrics)
        )
        return [row for row in newest if metrics_of(row)][::-1]

    def _send_grids(self) -> None:
        if _grids(self._run, after=self._record.grid):
            self.opened()
        for path in _grids(self._run, after=self._record.grid):
            tracker = self.opened()
            if path.name > self._record.sending_grid or not tracker.has_grid(path):
                number = self._record.numbered
                self._note(sending_grid=path.name, numbered=number + 1)
                tracker.log_grid(path, _step_of(path), number)
            self._note(grid=path.name)

    def _note(self, **changes: Any) -> None:
        self._may_write()
        self._known = record.write(self._run.path, self._name, self._record, **changes)


def _signature(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written; None if there is no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


def _batches(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows in lists of at most `MOST_METRICS` metrics, but at least one row each."""
    found: list[Row] = []
    metrics = 0
    for row in rows:
        metrics += len(metrics_of(row))
        if found and metrics > MOST_METRICS:
            yield found
            found, metrics = [], len(metrics_of(row))
        found.append(row)
    if found:
        yield found


def _grids(run: Run, after: str) -> list[Path]:
    """The grids of samples whose names come after another one's, in the order of steps."""
    return sorted(path for path in run.samples.glob("step-*.png") if path.name > after)


def _step_of(grid: Path) -> int:
    found = re.fullmatch(r"step-(\d+)", grid.stem)
    return int(found[1]) if found else 0
