"""The choice of the next trial, within the budget of trials.

The open trials come first, then what a search proposes or the next round of a population.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sweeps import plan, proposals, warm_start
from sweeps.population_rounds import Rounds
from sweeps.proposals import PastProposal, Proposal
from sweeps.sweep_file import Sweep
from sweeps.trial import ENDED, Trial, TrialFactory


class TrialQueue:
    """The trials of a sweep, handed out one by one.

    Args:
        sweep: the sweep with its search or population and its budget of trials.
        trials: the trials that there are.
        directory: the directory of the sweep; a new trial is written there before it is handed out.
        may_write: called before each write; raises where another process has taken over the sweep.

    Attributes:
        trials: the trials that there were and those that have come since.
    """

    def __init__(
        self,
        sweep: Sweep,
        trials: Sequence[Trial],
        directory: Path,
        may_write: Callable[[], None] = lambda: None,
    ) -> None:
        self._sweep, self._directory, self.may_write = sweep, directory, may_write
        self.trials = list(trials)
        self._by_id = {trial.id: trial for trial in trials}
        self._begun = {trial.id for trial in trials if trial.was_begun()}
        self._search = _Search(sweep, directory, may_write) if sweep.search else None
        self._rounds: Rounds | None = None
        if sweep.population is not None:
            self._rounds = Rounds(sweep, TrialFactory(sweep, directory), directory)
            may_write()
            self._rounds.write()
        # Only the last round of a population counts: who failed in an earlier round was replaced.
        candidates = trials if self._rounds is None else self._rounds.last
        still_open = [trial for trial in candidates if trial.status() not in ENDED]
        # Trials that have cost something already are brought to their end first.
        self._open = deque(sorted(still_open, key=lambda trial: trial.id not in self._begun))

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
        """The trial with an id."""
        return self._by_id[id_]

    def has_next(self) -> bool:
        """Whether `next` has a trial to give."""
        return self._open_is_next() or self._may_propose() or self._may_exchange()

    def waits(self) -> bool:
        """Whether `next` may have more trials to give when one that runs now has ended."""
        return self._rounds is not None and self._rounds.is_under_way()

    def is_complete(self) -> bool:
        """Whether every trial has ended and no further trial would come."""
        ended = all(trial.status() != "pending" for trial in self.trials)
        return ended and not self._open and not self._may_propose() and not self._may_exchange()

    def _next(self) -> Trial | None:
        if not self._open and self._may_exchange():
            self._exchange()
        if self._open_is_next():
            return self._open.popleft()
        if self._search is None or not self._may_propose():
            return None
        trial = self._search.propose(self.trials)
        if trial is not None:
            self._add([trial])
        return trial

    def _exchange(self) -> None:
        assert self._rounds is not None
        self.may_write()
        before, lost = self._rounds.last, self._rounds.reopen_lost()
        if lost:
            self._open.extend(lost)
            return
        found = self._rounds.exchange()
        self._add(found)
        self._open.extend(found)
        for trial in before:
            warm_start.keep_newest(trial.path)

    def _add(self, found: Sequence[Trial]) -> None:
        for trial in found:
            self.may_write()
            trial.create()
        self.trials += found
        self._by_id |= {trial.id: trial for trial in found}
        plan.write_ids(self.trials, self._directory)

    def _open_is_next(self) -> bool:
        return bool(self._open) and (self._open[0].id in self._begun or self._has_room())

    def _may_propose(self) -> bool:
        return self._search is not None and not self._search.exhausted and self._has_room()

    def _may_exchange(self) -> bool:
        return self._rounds is not None and self._rounds.may_exchange()

    def _has_room(self) -> bool:
        """Whether the budget allows that one more trial is begun."""
        most = self._sweep.budget.trials
        return most is None or len(self._begun) < most


class _Search:
    """The search of a sweep with its proposals and with what became of them.

    Attributes:
        exhausted: whether the search has found that there is no further point to propose.
    """

    def __init__(self, sweep: Sweep, directory: Path, may_write: Callable[[], None]) -> None:
        self._sweep, self._directory, self._may_write = sweep, directory, may_write
        self._factory = TrialFactory(sweep, directory)
        self._proposals = proposals.read(directory)
        self._ended: dict[str, PastProposal] = {}
        self.exhausted = False

    def propose(self, trials: Sequence[Trial]) -> Trial | None:
        """The trial of the next point; the proposal is written, the trial is not.

        Args:
            trials: all trials that there are.
        """
        # Only a search needs Optuna.
        from sweeps.optuna_search import propose

        while (found := propose(self._sweep, self._past(trials))) is not None:
            trial = self._factory.trial(found.point)
            self._proposals.append(found)
            self._may_write()
            proposals.write(self._proposals, self._directory)
            if all(trial.id != other.id for other in trials):
                return trial
        self.exhausted = True
        return None

    def _past(self, trials: Sequence[Trial]) -> list[PastProposal]:
        by_point = {_key(trial.point): trial for trial in trials}
        return [
            # Some points have no trial of their own: points that make the same trial as an earlier
            # point, and points that lie in another space.
            self._outcome(one, by_point[_key(one.point)])
            if _key(one.point) in by_point
            else PastProposal(one, "failed")
            for one in self._proposals
        ]

    def _outcome(self, proposal: Proposal, trial: Trial) -> PastProposal:
        if trial.id in self._ended:
            return self._ended[trial.id]
        status, objective = trial.status(), self._sweep.objective
        if status == "pending" or status == "failed":
            return PastProposal(proposal, "running" if status == "pending" else "failed")
        evaluations = trial.evaluations()
        past = PastProposal(
            proposal,
            status,
            values=objective.values(evaluations[-1] if evaluations else {}),
            scores={int(one["step"]): objective.score(one) for one in evaluations},
        )
        return self._ended.setdefault(trial.id, past)


def _key(point: dict[str, Any]) -> str:
    return json.dumps(point, sort_keys=True)
