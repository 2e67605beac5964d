"""Trials: one point of a sweep each, a run directory with a status beside it.

A trial's identity is the hash of its resolved recipe, its data and the weights it starts from. It
never depends on the order of the points, so a sweep may be extended, killed and restarted: a trial
that is finished or was stopped early is never run again, and one that was running goes on from its
checkpoint.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster import runs
from cluster.files import write_bytes
from cluster.logs import json_lines
from gencomp import recipes
from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe
from sweeps import warm_start
from sweeps.population_rounds import Rounds
from sweeps.sweep_file import (
    Objective,
    Proposal,
    Status,
    Sweep,
    contains,
    dump,
    extremes,
    load,
    points,
)

STATUS_FILE = "trial.json"
PROPOSALS_FILE = "proposals.json"
# A trial that is done stays as it is.
ENDED = ("finished", "stopped")


@dataclass(frozen=True)
class Trial:
    """A point of the space with its place on disk.

    Attributes:
        until: at this step it ends, if its recipe has not ended before; None: at the recipe's end.
        parent: the trial from whose last state it starts; None: from the beginning.
    """

    id: str
    path: Path
    point: dict[str, Any]
    recipe: BaseRecipe
    until: int | None = None
    parent: Trial | None = None

    def state(self) -> dict[str, Any]:
        """{"status", "point", "error", "starts"} as last written.

        `error` is that of the last start that failed; `starts` counts all.
        """
        return {"starts": 0, **json.loads((self.path / STATUS_FILE).read_text())}

    def status(self) -> Status:
        if runs.Run(self.path).result() is not None:
            return "finished"
        return self.state()["status"]

    def was_begun(self) -> bool:
        state = self.state()
        return state["starts"] > 0 or state["status"] != "pending"

    def create(self) -> None:
        """Its run, with the state that it starts from, and its status, unless they are there."""
        # A stretch of a population was trained with more than its recipe says.
        history = {"schedule": self.schedule()} if self.until is not None else None
        runs.enter(self.path, self.recipe, history)
        known = (self.path / STATUS_FILE).exists()
        if self.parent is not None and not (known and self.status() in ENDED):
            warm_start.take_over(self.parent.path, self.first_step, self.path)
        if not known:
            self._write("pending", None, 0)

    @property
    def first_step(self) -> int:
        """How many steps its state was trained by others."""
        return 0 if self.parent is None or self.parent.until is None else self.parent.until

    def schedule(self) -> list[dict[str, Any]]:
        """The values that its state was trained with after which step, and the trials that did."""
        before = self.parent.schedule() if self.parent else []
        return [*before, {"after_step": self.first_step, "point": self.point, "trial": self.id}]

    def has_reached_its_step(self) -> bool:
        """Whether it has come to where it ends before its recipe does."""
        return self.until is not None and warm_start.has_reached(self.path, self.until)

    def started(self) -> None:
        """It is started, perhaps again."""
        state = self.state()
        self._write("pending", state["error"], state["starts"] + 1)

    def set_status(self, status: Status, error: str | None = None) -> None:
        self._write(status, error, self.state()["starts"])

    def _write(self, status: Status, error: str | None, starts: int) -> None:
        state = {"status": status, "point": self.point, "error": error, "starts": starts}
        runs.write_text(self.path / STATUS_FILE, json.dumps(state, indent=1))

    def evaluations(self) -> list[dict[str, float]]:
        """Metrics of every evaluation, oldest first, with `step`; names without the split."""
        prefix = f"{self.recipe.evaluation.split}/"
        found = []
        for row in json_lines.read(runs.Run(self.path).metrics):
            metrics = {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}
            if metrics:
                found.append({"step": row["step"], **metrics})
        return found


def plan(sweep: Sweep, directory: Path) -> list[Trial]:
    """All trials of a sweep, those that it has come to so far; nothing is written.

    Raises:
        InputError: a point makes a recipe that is not valid, or data or a parent run is missing.
    """
    at = Place(sweep, directory)
    if sweep.search is None and sweep.population is None:
        return _distinct(at.trial(point) for point in points(sweep))
    for point in extremes(sweep):
        at.trial(point)
    if sweep.population is not None:
        return _distinct(trial for found in Rounds(sweep, at, directory).trials for trial in found)
    proposed = [one.point for one in read_proposals(directory) if contains(sweep, one.point)]
    return _distinct(at.trial(point) for point in proposed)


class Place:
    """Where the trials of a sweep belong.

    Args:
        sweep: its base recipe is read once.
        directory: of the sweep.
    """

    def __init__(self, sweep: Sweep, directory: Path) -> None:
        self._sweep, self._directory = sweep, directory
        self._raw = recipes.read(sweep.base)

    def trial(
        self, point: dict[str, Any], until: int | None = None, parent: Trial | None = None
    ) -> Trial:
        """The trial of a point; nothing is written.

        Args:
            until, parent: see `Trial`; they are part of its identity, where there are some.

        Raises:
            InputError: the recipe is not valid, or data or a parent run is missing.
        """
        raw = recipes.with_overrides(self._raw, {**self._sweep.overrides, **point})
        recipe = recipes.validate(raw, f"trial {_label(point)}")
        identity = runs.identify(recipe)
        if until is not None:
            identity |= {"until": until, "from": parent and parent.id}
        id_ = recipes.digest(identity)[:12]
        return Trial(id_, self._directory / "trials" / id_, point, recipe, until, parent)


def _distinct(found: Iterable[Trial]) -> list[Trial]:
    return list({trial.id: trial for trial in found}.values())


def read_proposals(directory: Path) -> list[Proposal]:
    """The points that a search has proposed, in their order."""
    file = directory / PROPOSALS_FILE
    return [Proposal(**one) for one in json.loads(file.read_text())] if file.exists() else []


def write_proposals(proposals: Sequence[Proposal], directory: Path) -> None:
    text = json.dumps([one._asdict() for one in proposals])
    runs.write_text(directory / PROPOSALS_FILE, text)


def table(trials: Sequence[Trial], objective: Objective) -> list[dict[str, Any]]:
    """One row a trial, best score first: see `row`; with several objectives also `pareto`."""
    return ranked([row(trial, objective) for trial in trials], objective)


def row(trial: Trial, objective: Objective) -> dict[str, Any]:
    """id, status, error, point, last evaluation with its step, score; of a member of a population
    also `from`, whose state it started from, and `until`."""
    last: Mapping[str, Any] = (trial.evaluations() or [{}])[-1]
    return {
        "trial": trial.id,
        "status": trial.status(),
        "error": trial.state()["error"],
        **trial.point,
        **_descent(trial),
        **last,
        "score": objective.score(last),
    }


def _descent(trial: Trial) -> dict[str, Any]:
    """Of a member of a population: from whom it went on, and until which step."""
    if trial.until is None:
        return {}
    return {"from": trial.parent and trial.parent.id, "until": trial.until}


def ranked(rows: Iterable[dict[str, Any]], objective: Objective) -> list[dict[str, Any]]:
    """Rows, best score first; with several objectives `pareto` says who is on the front."""
    found = sorted(rows, key=lambda one: one["score"])
    if not objective.against:
        return found
    front = {one["trial"] for one in pareto_front(found, objective)}
    return [{**one, "pareto": one["trial"] in front} for one in found]


def pareto_front(rows: Sequence[dict[str, Any]], objective: Objective) -> list[dict[str, Any]]:
    """The finished rows that keep the constraints and that no other such row beats: none is as
    good in all metrics and better in one. By the first metric, the least first."""
    good = [one for one in rows if one["status"] == "finished" and objective.feasible(one)]
    values = {one["trial"]: tuple(one[name] for name in objective.minimised) for one in good}

    def beaten(mine: tuple[float, ...]) -> bool:
        return any(
            other != mine and all(o <= m for o, m in zip(other, mine, strict=True))
            for other in values.values()
        )

    front = [one for one in good if not beaten(values[one["trial"]])]
    return sorted(front, key=lambda one: values[one["trial"]])


def write_plan(
    sweep: Sweep,
    trials: Sequence[Trial],
    directory: Path,
    may_write: Callable[[], None] = lambda: None,
) -> None:
    """sweep.yaml, the list of trials and a run for each new one; existing ones stay as they are.

    Args:
        may_write: called before each write; raises where another process has taken over the sweep.
    """
    # The sweep file first: it tells a directory that was cut short here from a stranger's.
    directory.mkdir(parents=True, exist_ok=True)
    may_write()
    runs.write_text(directory / "sweep.yaml", dump(sweep))
    write_list(trials, directory)
    for trial in trials:
        may_write()
        trial.create()


def write_list(trials: Sequence[Trial], directory: Path) -> None:
    runs.write_text(directory / "trials.json", json.dumps([trial.id for trial in trials]))


def write_table(rows: list[dict[str, Any]], directory: Path) -> None:
    """The table as results.parquet; trials that have no evaluation lack some columns."""
    columns = list(dict.fromkeys(name for one in rows for name in one))
    buffer = io.BytesIO()
    whole = pa.table({name: [one.get(name) for one in rows] for name in columns})
    pq.write_table(whole, buffer)
    write_bytes(directory / "results.parquet", buffer.getvalue())


@dataclass(frozen=True)
class SweepResult:
    """A sweep as it lies on disk."""

    sweep: Sweep
    rows: list[dict[str, Any]]
    directory: Path

    def best(self) -> list[dict[str, Any]]:
        return best(self.rows, self.sweep)

    def run(self, row: Mapping[str, Any]) -> runs.Run:
        return runs.open_run(self.directory / "trials" / row["trial"])


def read_results(directory: Path) -> SweepResult:
    """The table of a sweep that has run.

    Raises:
        InputError: the directory holds no sweep, or one without results yet.
    """
    if not (directory / "results.parquet").exists():
        raise InputError(f"{directory} has no results of a sweep; run `gencomp sweep` first")
    rows = pq.read_table(directory / "results.parquet").to_pylist()
    return SweepResult(load(directory / "sweep.yaml", {}), rows, directory)


def best(rows: list[dict[str, Any]], sweep: Sweep) -> list[dict[str, Any]]:
    """The Pareto front of several objectives, else the best row of each group."""
    if sweep.objective.against:
        return pareto_front(rows, sweep.objective)
    return best_of_each(rows, sweep.group_by)


def best_of_each(rows: list[dict[str, Any]], group_by: str | None) -> list[dict[str, Any]]:
    """The best finished row of each group (of all, without a group), groups in increasing order.

    A trial that was stopped early was beaten; it is chosen only where no trial of its group is
    finished.
    """
    best: dict[Any, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["status"] != "finished", row["score"])):
        if row["status"] in ENDED:
            best.setdefault(row[group_by] if group_by else None, row)
    return [best[key] for key in sorted(best, key=lambda key: (str(type(key)), key))]


def newest_round(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a population's members as they are now, without those that they come from."""
    last = max((row["until"] for row in rows), default=0)
    return [row for row in rows if row["until"] == last]


def _label(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in point.items())
