"""What we plug into Ray Tune: ASHA within groups, a stopper, the keeper of trials' statuses."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from sweeps.space import Asha
from sweeps.trials import Trial

_NO_LIMIT = 10**9  # steps; the recipe ends a trial, not the scheduler
_SECONDS_TO_SAVE = 20.0


class GroupedAsha(FIFOScheduler):
    """One ASHA per group, so that trials of different rates do not compete with each other.

    Trials are known by our own ids, which outlive a sweep's process, so the rungs of an earlier
    attempt can be filled again.

    Args:
        settings: grace and reduction.
        metric: to be minimised.
        history: (trial id, group, results in order) of the trials of earlier attempts.
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
            # Tune does not say why a trial ends; the keeper needs to know.
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


class StopWhenAsked(Stopper):
    """Ends the sweep some seconds after the stop file appears: trials save and leave before."""

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


class TrialKeeper(Callback):
    """Writes what became of each trial into its directory, and tells the caller."""

    def __init__(
        self, trials: Mapping[str, Trial], on_event: Callable[[Trial, str, dict[str, Any]], None]
    ) -> None:
        self._trials = trials
        self._on_event = on_event

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "score" in result:
            self._on_event(self._of(trial), "running", result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours = self._of(trial)
        if ours.status() == "finished":
            ours.set_status("finished")
        elif getattr(trial, "stopped_early", False):
            ours.set_status("stopped")
        else:
            return
        self._on_event(ours, ours.status(), (ours.evaluations() or [{}])[-1])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours = self._of(trial)
        reason = _last_words(trial)
        ours.set_status("failed", reason)
        self._on_event(ours, "failed", {"error": reason})

    def _of(self, trial: Any) -> Trial:
        return self._trials[_ours(trial)["id"]]


def _last_words(trial: Any) -> str:
    """The last line of a trial's error."""
    # Not trial.get_error(): it looks where Tune has not yet copied the file to.
    text = Path(trial.error_file).read_text() if trial.error_file else ""
    return text.strip().splitlines()[-1] if text.strip() else "the trial's process died"


def _ours(trial: Any) -> dict[str, Any]:
    return trial.config["trial"]


def _named(trial: Any) -> SimpleNamespace:
    return SimpleNamespace(trial_id=_ours(trial)["id"])
