"""Trials: one point of a sweep each, a run directory with a status beside it.

A trial's identity is the hash of its resolved recipe, its data and the weights it starts from. It
never depends on the order of the points, so a sweep may be extended, killed and restarted: a trial
that is finished or was stopped early is never run again, and one that was running goes on from its
checkpoint.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster import metrics_log, runs
from cluster.files import write_bytes
from gencomp import recipes
from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe
from sweeps.space import Objective, Status, Sweep, dump, load, points

STATUS_FILE = "trial.json"


@dataclass(frozen=True)
class Trial:
    """A point of the space with its place on disk."""

    id: str
    path: Path
    point: dict[str, Any]
    recipe: BaseRecipe

    def state(self) -> dict[str, Any]:
        """{"status", "point", "error"} as last written."""
        return json.loads((self.path / STATUS_FILE).read_text())

    def status(self) -> Status:
        if runs.Run(self.path).result() is not None:
            return "finished"
        return self.state()["status"]

    def set_status(self, status: Status, error: str | None = None) -> None:
        state = {"status": status, "point": self.point, "error": error}
        runs.write_text(self.path / STATUS_FILE, json.dumps(state, indent=1))

    def evaluations(self) -> list[dict[str, float]]:
        """Metrics of every evaluation, oldest first, with `step`; names without the split."""
        prefix = f"{self.recipe.evaluation.split}/"
        found = []
        for row in metrics_log.read(runs.Run(self.path).metrics):
            metrics = {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}
            if metrics:
                found.append({"step": row["step"], **metrics})
        return found


def plan(sweep: Sweep, directory: Path) -> list[Trial]:
    """All trials of a sweep; nothing is written.

    Raises:
        InputError: a point makes a recipe that is not valid, or data or a parent run is missing.
    """
    raw = recipes.read(sweep.base)
    chosen: dict[str, Trial] = {}
    for point in points(sweep):
        recipe = recipes.validate(
            recipes.with_overrides(raw, {**sweep.overrides, **point}), f"trial {_label(point)}"
        )
        id_ = recipes.digest(runs.identify(recipe))[:12]
        chosen.setdefault(id_, Trial(id_, directory / "trials" / id_, point, recipe))
    return list(chosen.values())


def table(trials: list[Trial], objective: Objective) -> list[dict[str, Any]]:
    """One row a trial, best score first: id, status, step, point, score, last evaluation."""
    rows = []
    for trial in trials:
        last: Mapping[str, Any] = (trial.evaluations() or [{}])[-1]
        score = objective.score(last) if last else float("inf")
        state = trial.state()
        rows.append(
            {
                "trial": trial.id,
                "status": trial.status(),
                "error": state["error"],
                **trial.point,
                **last,
                "score": score,
            }
        )
    return sorted(rows, key=lambda row: row["score"])


def write_plan(sweep: Sweep, trials: Sequence[Trial], directory: Path) -> None:
    """sweep.yaml, the list of trials and a run for each new one; existing ones stay as they are."""
    # The sweep file first: it tells a directory that was cut short here from a stranger's.
    directory.mkdir(parents=True, exist_ok=True)
    runs.write_text(directory / "sweep.yaml", dump(sweep))
    runs.write_text(directory / "trials.json", json.dumps([trial.id for trial in trials]))
    for trial in trials:
        runs.enter(trial.path, trial.recipe)
        if not (trial.path / STATUS_FILE).exists():
            trial.set_status("pending")


def write_table(rows: list[dict[str, Any]], directory: Path) -> None:
    """The table as results.parquet."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    write_bytes(directory / "results.parquet", buffer.getvalue())


@dataclass(frozen=True)
class SweepResult:
    """A sweep as it lies on disk."""

    sweep: Sweep
    rows: list[dict[str, Any]]
    directory: Path

    def best(self) -> list[dict[str, Any]]:
        return best_of_each(self.rows, self.sweep.group_by)

    def run(self, row: Mapping[str, Any]) -> runs.Run:
        return runs.open_run(self.directory / "trials" / row["trial"])


def read_results(directory: Path) -> SweepResult:
    """The table of a sweep that has run.

    Raises:
        InputError: the directory holds no sweep, or one without results yet.
    """
    if not (directory / "results.parquet").exists():
        raise InputError(
            f"{directory} has no results of a sweep; run `gencomp sweep` to its end first"
        )
    rows = pq.read_table(directory / "results.parquet").to_pylist()
    return SweepResult(load(directory / "sweep.yaml", {}), rows, directory)


def best_of_each(rows: list[dict[str, Any]], group_by: str | None) -> list[dict[str, Any]]:
    """The best finished row of each group (of all, without a group), groups in increasing order.

    A trial that was stopped early was beaten; it is chosen only where no trial of its group is
    finished.
    """
    best: dict[Any, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["status"] != "finished", row["score"])):
        if row["status"] in ("finished", "stopped"):
            best.setdefault(row[group_by] if group_by else None, row)
    return [best[key] for key in sorted(best, key=lambda key: (str(type(key)), key))]


def _label(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in point.items())
