"""The trials of a sweep in an experiment tracker, each as a run of its own under the sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cluster.beside import Tolerance, repeated
from cluster.runs import Run
from cluster.tracking import choice, record
from cluster.tracking.choice import Name
from cluster.tracking.follower import Connect, Follower
from cluster.tracking.keeping import PERIOD
from cluster.tracking.tracker import Group, Outcome
from sweeps.trial import ENDED, Status, Trial

_OUTCOMES: dict[Status, Outcome] = {
    "finished": "finished",
    "stopped": "stopped",
    "failed": "failed",
    "pending": "stopped",
}


class TrialsFollower:
    """Follows the trials of a sweep for a tracker.

    Args:
        directory: the sweep's directory, which the caller holds.
        name: the tracker's name.
        trials: gives the trials that there are now.
        may_write: raises if another process has taken the sweep over.
        connect: what opens a run in the tracker.
    """

    def __init__(
        self,
        directory: Path,
        name: Name,
        trials: Callable[[], Sequence[Trial]],
        may_write: Callable[[], None],
        connect: Connect = choice.connect,
    ) -> None:
        self._directory, self._name, self._trials = directory, name, trials
        self._may_write, self._connect = may_write, connect
        self._followers: dict[str, Follower] = {}
        self._done: set[str] = set()

    def send(self) -> None:
        """Send what the tracker lacks, and say which trials have ended."""
        for trial in list(self._trials()):
            if trial.id in self._done or not Run(trial.path).metrics.exists():
                continue
            status = trial.status()
            if status in ENDED:
                self._follower(trial).end(_OUTCOMES[status])
                self._done.add(trial.id)
                del self._followers[trial.id]
            else:
                self._follower(trial).send()

    def end(self) -> None:
        """Send what the tracker lacks, and say that no trial runs any more."""
        self.send()
        for trial in self._trials():
            if trial.id in self._followers:
                self._followers[trial.id].end(_OUTCOMES[trial.status()])
        known = record.found_or_made(self._directory, self._name)
        choice.end_group(self._name, known.project, self._group())

    def _follower(self, trial: Trial) -> Follower:
        if trial.id not in self._followers:
            self._followers[trial.id] = Follower(
                Run(trial.path), self._name, self._may_write, self._group(), self._connect
            )
        return self._followers[trial.id]

    def _group(self) -> Group:
        known = record.found_or_made(self._directory, self._name)
        return Group(known.id, self._directory.resolve().name)


@contextmanager
def tracked(
    directory: Path,
    name: Name | None,
    trials: Callable[[], Sequence[Trial]],
    may_write: Callable[[], None],
) -> Iterator[None]:
    """While the body runs a sweep, a tracker gets what its trials log; see `TrialsFollower`.

    Args:
        name: the tracker's name; None for no tracker.
    """
    if name is None:
        yield
        return
    follower, tolerance = TrialsFollower(directory, name, trials, may_write), Tolerance(name)

    def send() -> None:
        tolerance(follower.send)

    def end() -> None:
        tolerance(follower.end)

    with repeated(send, PERIOD, end):
        yield
