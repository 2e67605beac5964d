"""Which trial comes next: those that are open, then what a search proposes or the next round of a
population, within the budget."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sweeps import trials as on_disk
from sweeps import warm_start
from sweeps.population_rounds import Rounds
from sweeps.sweep_file import Past, Proposal, Sweep
from sweeps.trials import ENDED, Place, Trial


class Supply:
    """The trials of a sweep, handed out one by one.

    Args:
        sweep: its search or population, and its budget of trials.
        trials: those that there are.
        directory: of the sweep; what comes to it is written there before it is handed out.
        may_write: called before each write; raises where another process has taken over the sweep.

    Attributes:
        trials: those and what came to them since.
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
            self._rounds = Rounds(sweep, Place(sweep, directory), directory)
            may_write()
            self._rounds.write()
        # Of a population only the last round: who failed in one before was replaced.
        candidates = trials if self._rounds is None else self._rounds.last
        still_open = [trial for trial in candidates if trial.status() not in ENDED]
        # What has cost something already is brought to its end first.
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
        """The trial of an id."""
        return self._by_id[id_]

    def has_next(self) -> bool:
        """Whether `next` has something to give."""
        return self._open_is_next() or self._may_propose() or self._may_exchange()

    def waits(self) -> bool:
        """Whether `next` may have more to give when a trial that runs has ended."""
        return self._rounds is not None and self._rounds.is_under_way()

    def is_complete(self) -> bool:
        """Whether every trial has ended and nothing more would come."""
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
        before, lost = self._rounds.last, self._rounds.lost()
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
        on_disk.write_list(self.trials, self._directory)

    def _open_is_next(self) -> bool:
        return bool(self._open) and (self._open[0].id in self._begun or self._has_room())

    def _may_propose(self) -> bool:
        return self._search is not None and not self._search.exhausted and self._has_room()

    def _may_exchange(self) -> bool:
        return self._rounds is not None and self._rounds.may_exchange()

    def _has_room(self) -> bool:
        """Whether one more trial may be begun."""
        most = self._sweep.budget.trials
        return most is None or len(self._begun) < most


class _Search:
    """Proposals of a search, and what became of them."""

    def __init__(self, sweep: Sweep, directory: Path, may_write: Callable[[], None]) -> None:
        self._sweep, self._directory, self._may_write = sweep, directory, may_write
        self._place = Place(sweep, directory)
        self._proposals = on_disk.read_proposals(directory)
        self._ended: dict[str, Past] = {}
        self.exhausted = False

    def propose(self, trials: Sequence[Trial]) -> Trial | None:
        """The trial of the next point; the proposal is written, the trial is not.

        Args:
            trials: all that there are.
        """
        from sweeps.optuna_search import propose  # Optuna is for searches only

        while (found := propose(self._sweep, self._past(trials))) is not None:
            trial = self._place.trial(found.point)
            self._proposals.append(found)
            self._may_write()
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
