"""A trial of a sweep: what identifies it, where it lies, and what has become of it.

A trial is a run's directory with the file trial.json in it. The identity of a trial is the hash of
its resolved recipe, of its data and of the weights that it starts from. The identity never depends
on the order of the points, so a sweep may be extended, killed and restarted: a trial that has
finished or was stopped early is never run again, and a trial that was running goes on from its
checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cluster import run_entry, runs
from cluster.files import write_text
from cluster.logs import evaluation_rows, metrics_log
from cluster.run_status import is_run
from gencomp import recipes
from gencomp.recipes.schema import BaseRecipe
from sweeps import warm_start
from sweeps.sweep_file import Sweep

Status = Literal["pending", "finished", "stopped", "failed"]
# A trial with one of these statuses is never run again.
ENDED = ("finished", "stopped")
STATUS_FILE = "trial.json"


@dataclass(frozen=True)
class Trial:
    """A point of the space with its place on disk.

    Attributes:
        id: the hash that identifies the trial, which is also the name of its directory.
        path: the directory of the trial's run.
        point: the values of the keys in the space.
        recipe: the base recipe with the overrides of the sweep and the values of the point.
        until: the step at which the trial ends if its recipe has not ended before; None means that
            the trial ends with its recipe.
        parent: the trial from whose last state this one starts; None means that this one starts
            from the beginning.
        identity: the identity of the recipe's run, where it is known already.
    """

    id: str
    path: Path
    point: dict[str, Any]
    recipe: BaseRecipe
    until: int | None = None
    parent: Trial | None = None
    identity: Mapping[str, Any] | None = None

    def state(self) -> dict[str, Any]:
        """The entries "status", "point", "error" and "starts", as they were written last.

        The entry "error" is the error of the last start that failed; "starts" counts all starts.
        """
        return {"starts": 0, **json.loads((self.path / STATUS_FILE).read_text(encoding="utf-8"))}

    def status(self) -> Status:
        if runs.Run(self.path).result() is not None:
            return "finished"
        return self.state()["status"]

    def was_begun(self) -> bool:
        state = self.state()
        return state["starts"] > 0 or state["status"] != "pending"

    def create(self) -> None:
        """Create the run, the state that it starts from and trial.json, unless they exist."""
        # A stretch of a population was trained with more than its recipe says.
        history = {"schedule": self.schedule()} if self.until is not None else None
        run_entry.enter(self.path, self.recipe, history, self.identity)
        known = (self.path / STATUS_FILE).exists()
        if self.parent is not None and not (known and self.status() in ENDED):
            warm_start.copy_state(self.parent.path, self.first_step, self.path)
        if not known:
            self._write("pending", None, 0)

    @property
    def first_step(self) -> int:
        """The number of steps for which other trials trained the state that it starts from."""
        return 0 if self.parent is None or self.parent.until is None else self.parent.until

    def schedule(self) -> list[dict[str, Any]]:
        """The points that the state was trained with, each with its first step and its trial."""
        before = self.parent.schedule() if self.parent else []
        return [*before, {"after_step": self.first_step, "point": self.point, "trial": self.id}]

    def has_reached_its_step(self) -> bool:
        """Whether the trial has come to the step at which it ends before its recipe does."""
        return self.until is not None and warm_start.has_checkpoint(self.path, self.until)

    def count_start(self) -> None:
        """Note that the trial is started, for the first time or again."""
        state = self.state()
        self._write("pending", state["error"], state["starts"] + 1)

    def set_status(self, status: Status, error: str | None = None) -> None:
        self._write(status, error, self.state()["starts"])

    def _write(self, status: Status, error: str | None, starts: int) -> None:
        state = {"status": status, "point": self.point, "error": error, "starts": starts}
        write_text(self.path / STATUS_FILE, json.dumps(state, indent=1))

    def evaluations(self) -> list[dict[str, float]]:
        """The metrics of every evaluation, oldest first, with `step`, named without the split."""
        split = self.recipe.evaluation.split
        found = []
        for row in metrics_log.read(runs.Run(self.path).metrics):
            if metrics := evaluation_rows.from_row(row, split):
                found.append({"step": row["step"], **metrics})
        return found


class TrialFactory:
    """Makes the trials of a sweep from points of its space.

    Args:
        sweep: the sweep, whose base recipe is read once.
        directory: the directory of the sweep.
        identities: what trials that are planned together share; None looks it up for each trial,
            since data and parents may change while a sweep runs.
    """

    def __init__(
        self, sweep: Sweep, directory: Path, identities: run_entry.Identities | None = None
    ) -> None:
        self._overrides, self._directory = sweep.overrides, directory
        self._raw = recipes.read(sweep.base)
        self._identities = identities

    def trial(
        self, point: dict[str, Any], until: int | None = None, parent: Trial | None = None
    ) -> Trial:
        """The trial of a point; nothing is written.

        Args:
            point: the values of the keys in the space.
            until: the step at which the trial ends, see `Trial`; where it is given, it and the
                parent are part of the identity.
            parent: the trial from whose last state this one starts, see `Trial`.

        Raises:
            InputError: the recipe is not valid, or its data or a run that it names is missing.
        """
        raw = recipes.with_overrides(self._raw, {**self._overrides, **point})
        recipe = recipes.validate(raw, f"trial {_label(point)}")
        identity = (self._identities or run_entry.Identities()).of(recipe)
        chosen = {} if until is None else {"until": until, "from": parent and parent.id}
        id_ = recipes.digest(identity | chosen)[:12]
        path = self._directory / "trials" / id_
        if not is_run(path):
            run_entry.require_fitting(recipe)
        return Trial(id_, path, point, recipe, until, parent, identity)


def _label(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in point.items())
