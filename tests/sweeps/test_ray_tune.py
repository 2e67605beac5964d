"""Early stopping within groups, and the replay of what earlier attempts have seen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sweeps.sweep_file import Asha

pytest.importorskip("ray.tune")
from ray.tune.schedulers import TrialScheduler

from sweeps.ray_tune import GroupedAsha

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


def trial(id_: str, group: Any = None) -> Any:
    return SimpleNamespace(config={"trial": {"id": id_, "group": group}}, trial_id=f"tune-{id_}")


def feed(scheduler: GroupedAsha, id_: str, step: int, score: float, group: Any = None) -> str:
    one = trial(id_, group)
    scheduler.on_trial_add(None, one)
    return scheduler.on_trial_result(None, one, {"step": step, "score": score})


def asha(history: Any = ()) -> GroupedAsha:
    return GroupedAsha(Asha(grace=10, reduction=2), "score", history)


def test_the_worse_half_stops_at_a_rung() -> None:
    scheduler = asha()
    assert feed(scheduler, "a", 5, 9.0) == CONTINUE  # before the first rung nothing is judged
    assert feed(scheduler, "a", 10, 0.1) == CONTINUE
    assert feed(scheduler, "b", 5, 9.0) == CONTINUE
    assert feed(scheduler, "b", 10, 0.2) == STOP
    assert feed(scheduler, "c", 10, 0.05) == CONTINUE
    assert (
        feed(scheduler, "d", 12, 0.12) == STOP
    )  # a step between two rungs is judged at the lower one
    assert feed(scheduler, "a", 15, 9.0) == CONTINUE  # and once judged, not again before the next


def test_groups_do_not_compete() -> None:
    scheduler = asha()
    assert feed(scheduler, "a", 10, 0.1, group=2) == CONTINUE
    assert feed(scheduler, "b", 10, 0.9, group=8) == CONTINUE
    assert feed(scheduler, "c", 10, 0.8, group=8) == CONTINUE
    assert feed(scheduler, "d", 10, 0.95, group=8) == STOP


def test_a_score_that_is_not_finite_is_worst() -> None:
    scheduler = asha()
    assert feed(scheduler, "a", 10, 0.1) == CONTINUE
    assert feed(scheduler, "b", 10, float("inf")) == STOP


def test_history_fills_the_rungs_again() -> None:
    """A restarted sweep decides as one that was never interrupted."""
    results = {
        "a": [(5, 9.0), (10, 0.1), (20, 0.08)],
        "b": [(10, 0.2)],
        "c": [(10, 0.05), (15, 0.04)],
    }
    history = [
        (id_, 2, [{"step": step, "score": score} for step, score in rows])
        for id_, rows in results.items()
    ]
    whole, restarted = asha(), asha(history)
    for id_, rows in results.items():
        for step, score in rows:
            feed(whole, id_, step, score, group=2)
    for scheduler in (whole, restarted):
        assert feed(scheduler, "d", 10, 0.12, group=2) == STOP
        assert feed(scheduler, "e", 10, 0.04, group=2) == CONTINUE
        assert feed(scheduler, "c", 20, 0.09, group=2) == STOP
        # What was judged in the first attempt is not judged again when it is reported again.
        assert feed(scheduler, "a", 20, 0.5, group=2) == CONTINUE


def test_a_stop_leaves_its_mark_on_the_trial() -> None:
    """Tune does not say why a trial ended; `TrialStatusCallback` reads it here."""
    scheduler = asha()
    feed(scheduler, "a", 10, 0.1)
    good, bad = trial("c"), trial("b")
    scheduler.on_trial_add(None, bad)
    scheduler.on_trial_add(None, good)
    scheduler.on_trial_result(None, bad, {"step": 10, "score": 0.2})
    scheduler.on_trial_result(None, good, {"step": 10, "score": 0.01})
    assert bad.stopped_early and not hasattr(good, "stopped_early")
