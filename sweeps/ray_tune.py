"""Our parts of Ray Tune: ASHA within groups, the searcher that takes trials from the queue, a
stopper, and the callbacks that write the status of each trial and keep Tune from printing.

Beside Tune's public interface these parts depend on what Ray does not promise to keep:

- Tune leaves out its own progress output when it is given a callback that is a
  `ray.tune.progress_reporter.TrialProgressCallback` (and AIR_VERBOSITY is not set).
- `ASHAScheduler` uses neither the controller that it is given nor anything of a trial but its
  `trial_id`, so `GroupedAsha` may give it None and a stand-in.
- A trial of Tune has `config` and `error_file`; it lets `GroupedAsha` set the attribute
  `stopped_early`, and Tune gives the very same object to the scheduler and to the callbacks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from gencomp.errors import InputError
from sweeps.sweep_file import Asha
from sweeps.trial import Status, Trial
from sweeps.trial_queue import TrialQueue

# The recipe ends a trial, not the scheduler, so the scheduler is given more steps than there are.
_NO_LIMIT = 10**9
_SECONDS_TO_SAVE = 60.0


class GroupedAsha(FIFOScheduler):
    """One ASHA per group, so that trials of different rates do not compete with each other.

    Trials are known by our own ids, which outlive the process of a sweep, so the rungs of an
    earlier attempt can be filled again.

    Args:
        settings: the grace and the reduction.
        metric: the name of the metric that is minimised.
        history: the trials of earlier attempts, each as its id, its group and its results in order.
    """

    def __init__(
        self,
        settings: Asha,
        metric: str,
        history: Sequence[tuple[str, Any, Sequence[Mapping[str, float]]]],
    ) -> None:
        super().__init__()
        self._metric = metric
        self._settings = settings
        self._groups: dict[Any, ASHAScheduler] = {}
        for trial_id, group, results in history:
            known = SimpleNamespace(trial_id=trial_id)
            self._group(group).on_trial_add(None, known)
            for result in results:
                self._group(group).on_trial_result(None, known, dict(result))

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._group(_ours(trial)["group"]).on_trial_add(tune_controller, _named(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision = self._group(_ours(trial)["group"]).on_trial_result(
            tune_controller, _named(trial), result
        )
        if decision == TrialScheduler.STOP:
            # Tune does not say why a trial ends, but `TrialStatusCallback` needs to know.
            trial.stopped_early = True
        return str(decision)

    def _group(self, key: Any) -> ASHAScheduler:
        if key not in self._groups:
            self._groups[key] = ASHAScheduler(
                time_attr="step",
                metric=self._metric,
                mode="min",
                max_t=_NO_LIMIT,
                grace_period=self._settings.grace,
                reduction_factor=self._settings.reduction,
                stop_last_trials=False,
            )
        return self._groups[key]


class QueueSearcher(Searcher):
    """Gives Tune one trial of the queue after the other, until the attempt shall end.

    Args:
        queue: the queue of trials.
        closed: whether no more trials are started.
        group: the group within which a trial competes.

    Attributes:
        refusal: what was wrong with a trial that a search proposed; no trial is started after it.
    """

    def __init__(
        self, queue: TrialQueue, closed: Callable[[], bool], group: Callable[[Trial], Any]
    ) -> None:
        super().__init__()
        self._queue, self._closed, self._group = queue, closed, group
        self.refusal: InputError | None = None

    def suggest(self, trial_id: str) -> Any:
        if self.refusal is not None or self._closed():
            return Searcher.FINISHED
        try:
            found = self._queue.next()
        except InputError as error:
            self.refusal = error
            return Searcher.FINISHED
        if found is None:
            return None if self._queue.waits() else Searcher.FINISHED
        return {
            "trial": {
                "id": found.id,
                "group": self._group(found),
                "path": str(found.path.resolve()),
                "until": found.until,
            }
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        pass  # the queue reads what became of a trial from its directory

    def save(self, checkpoint_path: str) -> None:
        pass  # all that counts is in the directories of the trials


class StopFileStopper(Stopper):
    """Ends the sweep some time after the stop file appears; trials save and leave before that."""

    def __init__(self, flag: Path) -> None:
        self._flag = flag
        self._since: float | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if not self._flag.exists():
            return False
        self._since = self._since or time.monotonic()
        return time.monotonic() - self._since > _SECONDS_TO_SAVE


class SilentProgressCallback(TrialProgressCallback):
    """Takes the place of Tune's own progress callback, which prints."""

    def log_result(self, trial: Any, result: dict[str, Any], error: bool = False) -> None:
        pass

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        pass


class TrialStatusCallback(Callback):
    """Writes what became of each trial into its directory, and tells the caller.

    Args:
        queue: the queue of trials.
        on_event: called with a trial and what happened to it, see `sweeps.run.run`.
    """

    def __init__(
        self, queue: TrialQueue, on_event: Callable[[Trial, str, dict[str, Any]], None]
    ) -> None:
        self._queue, self._on_event = queue, on_event

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours = self._trial(trial)
        self._queue.may_write()
        ours.count_start()
        self._on_event(ours, "started", {})

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "score" in result:
            self._on_event(self._trial(trial), "running", result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours = self._trial(trial)
        self._queue.may_write()
        if ours.status() == "finished":
            ours.set_status("finished")
        elif getattr(trial, "stopped_early", False) or ours.has_reached_its_step():
            ours.set_status("stopped")
        else:
            return
        self._on_event(ours, ours.status(), (ours.evaluations() or [{}])[-1])

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._failed(trial, "pending", "again")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._failed(trial, "failed", "failed")

    def _failed(self, trial: Any, status: Status, event: str) -> None:
        ours = self._trial(trial)
        reason = _last_words(trial)
        self._queue.may_write()
        ours.set_status(status, reason)
        self._on_event(ours, event, {"error": reason})

    def _trial(self, trial: Any) -> Trial:
        """Our trial for one of Tune's."""
        return self._queue.trial(_ours(trial)["id"])


def _last_words(trial: Any) -> str:
    """The last line of a trial's error."""
    # We do not call trial.get_error(): it looks where Tune has not yet copied the file to.
    text = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
    return text.strip().splitlines()[-1] if text.strip() else "the trial's process died"


def _ours(trial: Any) -> dict[str, Any]:
    """What `QueueSearcher` suggested for one of Tune's trials."""
    return trial.config["trial"]


def _named(trial: Any) -> SimpleNamespace:
    """A stand-in for one of Tune's trials that has our id."""
    return SimpleNamespace(trial_id=_ours(trial)["id"])
