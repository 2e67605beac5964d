"""The rounds of a population on disk, in rounds.json.

The file says what each member was trained with in each round, and from whose state it started.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.files import write_text
from gencomp.errors import InputError
from sweeps import warm_start
from sweeps.population import Member, first_round, next_round
from sweeps.sweep_file import Sweep
from sweeps.trial import Trial, TrialFactory

FILE = "rounds.json"
# The entries of a sweep on which an exchange depends, beside the trials.
_SETTINGS = {"population", "space", "objective", "seed"}


class Rounds:
    """The rounds that there were, and the round that is under way.

    Only `write`, `exchange` and `reopen_lost` write anything.

    Args:
        sweep: a sweep with a population.
        factory: makes the trials of the sweep.
        directory: the directory of the sweep.

    Attributes:
        trials: the trials by round and by member; members that do the same have the same trial.

    Raises:
        InputError: the directory holds another population, or the members of this one cannot be
            compared, or a trial cannot be made.
    """

    def __init__(self, sweep: Sweep, factory: TrialFactory, directory: Path) -> None:
        assert sweep.population is not None
        self._sweep, self._factory, self._file = sweep, factory, directory / FILE
        self._every = sweep.population.every
        self._members: list[Sequence[Member]] = []
        self.trials: list[list[Trial]] = []
        if not self._file.exists():
            self._add(first_round(sweep))
        else:
            written = json.loads(self._file.read_text(encoding="utf-8"))
            for members in written["rounds"]:
                self._add([Member(one["point"], one["parent"]) for one in members])
            self._require_same(written)
        evaluated = self.trials[0][0].recipe.evaluation.every
        if self._every % evaluated:
            raise InputError(
                f"population.every is {self._every}, but it must be a multiple of"
                f" evaluation.every, {evaluated}: members are compared by their evaluations"
            )

    @property
    def last(self) -> list[Trial]:
        """The trials of the last round, each of them once."""
        return list({trial.id: trial for trial in self.trials[-1]}.values())

    def is_under_way(self) -> bool:
        """Whether trials of the last round have not ended."""
        return any(trial.status() == "pending" for trial in self.last)

    def may_exchange(self) -> bool:
        """Whether all of the last round have reached its end, but not the end of their recipe."""
        found = {trial.status() for trial in self.last}
        return "stopped" in found and not found & {"pending", "finished"}

    def reopen_lost(self) -> list[Trial]:
        """Open the trials of the last round again whose state at its end is missing or damaged.

        They go on from the state that they had before.
        """
        stopped = [trial for trial in self.last if trial.status() == "stopped"]
        lost = [one for one in stopped if warm_start.remove_damaged(one.path, one.until or 0)]
        for trial in lost:
            trial.set_status("pending")
            trial.create()
        return lost

    def exchange(self) -> list[Trial]:
        """Begin the next round: the round is written, the runs of its trials are not.

        Raises:
            InputError: no member has a finite score.
        """
        scores = [self._score(trial) for trial in self.trials[-1]]
        self._add(next_round(self._sweep, len(self.trials), self._members[-1], scores))
        self.write()
        return self.last

    def write(self) -> None:
        """Write all rounds."""
        write_text(self._file, json.dumps(self._content()))

    def _add(self, members: Sequence[Member]) -> None:
        before = self.trials[-1] if self.trials else []
        until = (len(self.trials) + 1) * self._every
        self._members.append(members)
        self.trials.append(
            [
                self._factory.trial(
                    one.point, until, None if one.parent is None else before[one.parent]
                )
                for one in members
            ]
        )

    def _content(self) -> dict[str, Any]:
        return {
            "sweep": self._sweep.model_dump(mode="json", include=_SETTINGS),
            "rounds": [
                [
                    {"trial": trial.id, **member._asdict()}
                    for trial, member in zip(trials, members, strict=True)
                ]
                for trials, members in zip(self.trials, self._members, strict=True)
            ],
        }

    def _require_same(self, written: dict[str, Any]) -> None:
        """Raise `InputError` where the rounds were made with other settings or another recipe."""
        now = json.loads(json.dumps(self._content()))
        if now != written:
            changed = [
                key for key in now["sweep"] if now["sweep"][key] != written["sweep"].get(key)
            ]
            raise InputError(
                f"{self._file.parent} holds a population with another"
                f" {', '.join(changed) or 'recipe or other data'}; choose another --name, or put"
                " that back"
            )

    def _score(self, trial: Trial) -> float:
        """The score of a trial at the end of its round, which is infinite where it has failed."""
        if trial.status() != "stopped":
            return math.inf
        at_end = [one for one in trial.evaluations() if one["step"] == trial.until]
        return self._sweep.objective.score(at_end[-1] if at_end else {})
