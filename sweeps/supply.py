"""Which trial comes next: those that are open, then what a search proposes, within the budget."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeps import trials as on_disk
from sweeps.space import Past, Proposal, Sweep
from sweeps.trials import Place, Trial

# A trial that is done stays as it is.
_ENDED = ("finished", "stopped")


class Supply:
    """The trials of a sweep, handed out one by one.

    Args:
        sweep: its search and its budget of trials.
        trials: those that there are.
        directory: of the sweep; what a search proposes is written there before it is handed out.

    Attributes:
        trials: those and what was proposed since.
    """

    def __init__(self, sweep: Sweep, trials: Sequence[Trial], directory: Path) -> None:
        self._sweep, self._directory = sweep, directory
        self.trials = list(trials)
        self._by_id = {trial.id: trial for trial in trials}
        self._begun = {trial.id for trial in trials if trial.was_begun()}
        still_open = [trial for trial in trials if trial.status() not in _ENDED]
        # What has cost something already is brought to its end first.
        self._open = deque(sorted(still_open, key=lambda trial: trial.id not in self._begun))
        self._search = _Search(sweep, directory) if sweep.search else None

    def next(self) -> Trial | None:
        """The next trial to run, or None when there is none, or none within the budget.

        Raises:
            InputError: a search proposed a point that makes an invalid recipe.
        """
        trial = self._next()
        if trial is not None:
            self._begun.add(trial.id)
        return trial

    def trial(self, id_: str) -> Trial:
        """The trial of an id."""
        return self._by_id[id_]

    def has_next(self) -> bool:
        """Whether `next` has something to give."""
        return self._open_is_next() or self._may_propose()

    def is_complete(self) -> bool:
        """Whether every trial has ended and nothing more would be proposed."""
        ended = all(trial.status() != "pending" for trial in self.trials)
        return ended and not self._open and not self._may_propose()

    def _next(self) -> Trial | None:
        if self._open_is_next():
            return self._open.popleft()
        if self._search is None or not self._may_propose():
            return None
        trial = self._search.propose(self.trials)
        if trial is not None:
            trial.create()
            self.trials.append(trial)
            self._by_id[trial.id] = trial
            on_disk.write_list(self.trials, self._directory)
        return trial

    def _open_is_next(self) -> bool:
        return bool(self._open) and (self._open[0].id in self._begun or self._has_room())

    def _may_propose(self) -> bool:
        return self._search is not None and not self._search.exhausted and self._has_room()

    def _has_room(self) -> bool:
        """Whether one more trial may be begun."""
        most = self._sweep.budget.trials
        return most is None or len(self._begun) < most


class _Search:
    """Proposals of a search, and what became of them."""

    def __init__(self, sweep: Sweep, directory: Path) -> None:
        self._sweep, self._directory = sweep, directory
        self._place = Place(sweep, directory)
        self._proposals = on_disk.read_proposals(directory)
        self._ended: dict[str, Past] = {}
        self.exhausted = False

    def propose(self, trials: Sequence[Trial]) -> Trial | None:
        """The trial of the next point; the proposal is written, the trial is not.

        Args:
            trials: all that there are.
        """
        from sweeps.search import propose  # Optuna is for searches only

        while (found := propose(self._sweep, self._past(trials))) is not None:
            trial = self._place.trial(found.point)
            self._proposals.append(found)
            on_disk.write_proposals(self._proposals, self._directory)
            if all(trial.id != other.id for other in trials):
                return trial
        self.exhausted = True
        return None

    def _past(self, trials: Sequence[Trial]) -> list[Past]:
        of = {_key(trial.point): trial for trial in trials}
        return [
            # Of points that are one trial, or lie in another space, only the first one counts.
            self._become(one, of[_key(one.point)]) if _key(one.point) in of else Past(one, "failed")
            for one in self._proposals
        ]

    def _become(self, proposal: Proposal, trial: Trial) -> Past:
        if trial.id in self._ended:
            return self._ended[trial.id]
        status, objective = trial.status(), self._sweep.objective
        if status == "pending" or status == "failed":
            return Past(proposal, "running" if status == "pending" else "failed")
        evaluations = trial.evaluations()
        past = Past(
            proposal,
            status,
            values=objective.values(evaluations[-1] if evaluations else {}),
            scores={int(one["step"]): objective.score(one) for one in evaluations},
        )
        return self._ended.setdefault(trial.id, past)


def _key(point: dict[str, Any]) -> str:
    return json.dumps(point, sort_keys=True)
