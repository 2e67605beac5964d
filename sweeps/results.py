"""The results of a sweep: a row for each trial, ranked, in results.parquet."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import le
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster import runs
from cluster.files import write_bytes
from gencomp.errors import InputError
from sweeps.plan import SWEEP_FILE
from sweeps.sweep_file import Objective, Sweep, load
from sweeps.trial import ENDED, Trial

FILE = "results.parquet"
# At most this share of the time goes into writing the table, unless it would be older than this.
_SHARE, _OLDEST_SECONDS = 0.02, 60.0
# The columns beside the point and the metrics of a trial; only some sweeps have the optional ones.
_OPTIONAL = ("pareto", "from", "until")
_FIXED = ("trial", "status", "error", "step", "score", *_OPTIONAL)


class ResultsTable:
    """The file results.parquet, which follows the starts and ends of trials within a minute.

    A table of many trials takes long to rank and to write, so it is not written at each event. The
    directories of the trials say what is done, so a table that is old when its sweep is killed
    costs nothing.

    Args:
        trials: the trials that there are already.
        objective: ranks the trials.
        directory: the directory of the sweep.
        may_write: called before each write; raises where another process has taken over the sweep.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        objective: Objective,
        directory: Path,
        may_write: Callable[[], None],
    ) -> None:
        self._objective, self._directory, self._may_write = objective, directory, may_write
        self._rows: dict[str, dict[str, Any]] = {}
        self._changed, self._due = False, 0.0
        self.note(*trials)
        self.write()

    def note(self, *trials: Trial) -> None:
        """Remember the rows of these trials as they are now."""
        # Events come on Tune's thread, which pickles what it is given, so that a lock has no place
        # here; replacing the rows as a whole needs none.
        self._rows = self._rows | {trial.id: row(trial, self._objective) for trial in trials}
        self._changed = True

    def write_when_due(self) -> None:
        """Write the table anew if trials were noted and it may; this is to be called often."""
        if self._changed and time.monotonic() >= self._due:
            self.write()

    def write(self) -> None:
        """Write the table anew."""
        self._changed = False  # before the rows are read: a later change is written next time
        rows = list(self._rows.values())
        begun = time.monotonic()
        self._may_write()
        write_table(ranked(rows, self._objective), self._directory)
        now = time.monotonic()
        self._due = now + min((now - begun) / _SHARE, _OLDEST_SECONDS)


@dataclass(frozen=True)
class SweepResult:
    """A sweep as it lies on disk."""

    sweep: Sweep
    rows: list[dict[str, Any]]
    directory: Path

    def best(self) -> list[dict[str, Any]]:
        """The best rows, see `best`."""
        return best(self.rows, self.sweep)

    def run(self, row: Mapping[str, Any], checkpoint: str = "last") -> runs.Run:
        """The run of the trial in a row, with the choice of its checkpoint."""
        return runs.open_run(self.directory / "trials" / row["trial"], checkpoint)

    def evaluations(self, row: Mapping[str, Any]) -> list[dict[str, float]]:
        """All evaluations of the trial in a row, see `Trial.evaluations`."""
        run, point = self.run(row), {key: row[key] for key in self.sweep.space}
        return Trial(row["trial"], run.path, point, run.recipe()).evaluations()


def read_results(directory: Path) -> SweepResult:
    """The table of a sweep that has run.

    Raises:
        InputError: the directory holds no sweep, or a sweep without results.
    """
    if not (directory / FILE).exists():
        raise InputError(f"{directory} has no results of a sweep; run `gencomp sweep` first")
    rows = pq.read_table(directory / FILE).to_pylist()
    return SweepResult(load(directory / SWEEP_FILE, {}), rows, directory)


def table(trials: Sequence[Trial], objective: Objective) -> list[dict[str, Any]]:
    """A row for each trial, the best score first; see `row` and `ranked`."""
    return ranked([row(trial, objective) for trial in trials], objective)


def row(trial: Trial, objective: Objective) -> dict[str, Any]:
    """The id, status, error and point of a trial, its last evaluation with its step, and its score.

    The row of a member of a population has two columns more: `from` is the id of the trial from
    whose state the member started, and `until` is the step at which the member ends.
    """
    last: Mapping[str, Any] = (trial.evaluations() or [{}])[-1]
    return {
        "trial": trial.id,
        "status": trial.status(),
        "error": trial.state()["error"],
        **trial.point,
        **_origin(trial),
        **last,
        "score": objective.score(last),
    }


def nested(rows: Iterable[Mapping[str, Any]], sweep: Sweep) -> list[dict[str, Any]]:
    """The rows with keys that no sweep changes: its point and its metrics are mappings inside."""
    return [
        {
            **{key: one[key] for key in ("trial", "status", "error")},
            "point": {key: one[key] for key in sweep.space},
            "step": one.get("step"),
            "metrics": {
                key: value
                for key, value in one.items()
                if key not in sweep.space and key not in _FIXED
            },
            **{key: one[key] for key in ("score", *_OPTIONAL) if key in one},
        }
        for one in rows
    ]


def _origin(trial: Trial) -> dict[str, Any]:
    """The parent of a population's member and the step of its end; empty for other trials."""
    if trial.until is None:
        return {}
    return {"from": trial.parent and trial.parent.id, "until": trial.until}


def write_table(rows: list[dict[str, Any]], directory: Path) -> None:
    """Write rows as results.parquet; the rows of trials without an evaluation lack some columns."""
    columns = list(dict.fromkeys(name for one in rows for name in one))
    buffer = io.BytesIO()
    whole = pa.table({name: [one.get(name) for one in rows] for name in columns})
    pq.write_table(whole, buffer)
    write_bytes(directory / FILE, buffer.getvalue())


def ranked(rows: Iterable[dict[str, Any]], objective: Objective) -> list[dict[str, Any]]:
    """The rows, the best score first.

    With several objectives the column `pareto` says whether a trial is on the Pareto front.
    """
    found = sorted(rows, key=lambda one: one["score"])
    if not objective.against:
        return found
    front = {one["trial"] for one in pareto_front(found, objective)}
    return [{**one, "pareto": one["trial"] in front} for one in found]


def pareto_front(rows: Sequence[dict[str, Any]], objective: Objective) -> list[dict[str, Any]]:
    """The finished rows that keep the constraints and that no other such row beats.

    A row beats another when it is as good in all metrics and better in one. The front is sorted by
    the first metric, the least first.
    """
    good = [one for one in rows if one["status"] == "finished" and objective.feasible(one)]
    values = {one["trial"]: tuple(one[name] for name in objective.minimised) for one in good}
    front: list[dict[str, Any]] = []
    beating: list[tuple[float, ...]] = []  # the different values of the front so far
    # What beats a row comes before it in this order, or is itself beaten by something that does.
    for one in sorted(good, key=lambda one: values[one["trial"]]):
        mine = values[one["trial"]]
        if beating and mine == beating[-1]:
            front.append(one)
        elif not any(all(map(le, other, mine)) for other in beating):
            front.append(one)
            beating.append(mine)
    return front


def best(rows: list[dict[str, Any]], sweep: Sweep) -> list[dict[str, Any]]:
    """The Pareto front of several objectives, or else the best row of each group."""
    if sweep.objective.against:
        return pareto_front(rows, sweep.objective)
    return best_of_each(rows, sweep.group_by)


def best_of_each(rows: list[dict[str, Any]], group_by: str | None) -> list[dict[str, Any]]:
    """The best finished row of each group, the groups in increasing order.

    Without `group_by` all rows are one group. A trial that was stopped early was beaten, so its row
    is chosen only where no trial of its group has finished.
    """
    best: dict[Any, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["status"] != "finished", row["score"])):
        if row["status"] in ENDED:
            best.setdefault(row[group_by] if group_by else None, row)
    return [best[key] for key in sorted(best, key=lambda key: (str(type(key)), key))]


def newest_round(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a population's newest round, without those of earlier rounds."""
    last = max((row["until"] for row in rows), default=0)
    return [row for row in rows if row["until"] == last]
