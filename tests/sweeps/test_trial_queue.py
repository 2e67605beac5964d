"""The next trial within budgets of trials and of time, whoever was killed before."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cluster import runs
from cluster.logs import json_lines
from gencomp.errors import InputError
from sweeps import plan
from sweeps.sweep_file import Sweep
from sweeps.trial import Trial
from sweeps.trial_queue import TrialQueue
from tests import tiny
from tests.sweeps.small_sweeps import planned


def sweep(base: Path, **parts: Any) -> Sweep:
    return Sweep.model_validate(
        {"base": str(base), "space": {"loss.mmd_weight": {"grid": [0, 1, 2, 3]}}} | parts
    )


def search(base: Path, count: int = 4, **parts: Any) -> Sweep:
    made = {"space": {"loss.mmd_weight": {"uniform": [0, 9]}}, "search": {"sampler": "random"}}
    return sweep(base, budget={"trials": count}, **made | parts)


def opened(of: Sweep, directory: Path) -> TrialQueue:
    """The queue as a process that is only starting sees it."""
    return TrialQueue(of, planned(of, directory), directory)


def weights(found: list[Trial]) -> list[float]:
    return [trial.point["loss.mmd_weight"] for trial in found]


def take(one: TrialQueue) -> list[Trial]:
    return list(iter(one.next, None))


def finish(trial: Trial, mse: float = 0.5) -> None:
    json_lines.append(runs.Run(trial.path).metrics, {"step": 5, "test/mse": mse, "test/bpp": 1.0})
    (trial.path / "result.json").write_text("{}")
    trial.set_status("finished")


class TestPoints:
    def test_what_was_begun_comes_first_and_what_has_ended_never(
        self, base: Path, tmp_path: Path
    ) -> None:
        first = opened(sweep(base), tmp_path / "s")
        none, one, _, three = first.trials
        finish(none)
        one.set_status("stopped")
        three.count_start()
        assert weights(take(opened(sweep(base), tmp_path / "s"))) == [3, 2]
        three.set_status("failed", "the disk was full")
        assert weights(take(opened(sweep(base), tmp_path / "s"))) == [3, 2]

    def test_a_budget_of_trials_counts_all_that_were_begun(
        self, base: Path, tmp_path: Path
    ) -> None:
        few = sweep(base, budget={"trials": 3})
        one = opened(few, tmp_path / "s")
        found = take(one)
        assert weights(found) == [0, 1, 2] and not one.has_next() and not one.is_complete()
        for trial in found[:2]:
            trial.count_start()
        finish(found[0])
        found[1].set_status("failed", "broken")
        # One that failed may be started again; it is no new one.
        assert weights(take(opened(few, tmp_path / "s"))) == [1, 2]
        assert weights(take(opened(sweep(base, budget={"trials": 2}), tmp_path / "s"))) == [1]
        assert weights(take(opened(sweep(base), tmp_path / "s"))) == [1, 2, 3]

    def test_starts_and_the_last_error_are_kept(self, base: Path, tmp_path: Path) -> None:
        trial = opened(sweep(base), tmp_path / "s").trials[0]
        assert not trial.was_begun()
        trial.count_start()
        trial.set_status("pending", "the process died")
        trial.count_start()
        assert trial.was_begun()
        assert trial.state() | {"point": 0} == {
            "status": "pending",
            "point": 0,
            "error": "the process died",
            "starts": 2,
        }
        finish(trial)
        assert trial.state()["error"] is None


class TestSearch:
    def test_as_many_as_the_budget_allows(self, base: Path, tmp_path: Path) -> None:
        one = opened(search(base), tmp_path / "s")
        assert one.trials == [] and one.has_next()
        found = take(one)
        assert len({trial.id for trial in found}) == 4 and found == one.trials
        assert not one.has_next() and not one.is_complete()
        assert all(one.trial(trial.id) is trial for trial in found)
        for trial in found:
            finish(trial)
        assert one.is_complete()
        again = opened(search(base), tmp_path / "s")
        assert take(again) == [] and again.is_complete()
        # A larger budget goes on where the smaller one ended, as one that was so large at once.
        more = [*found, *take(opened(search(base, 6), tmp_path / "s"))]
        assert weights(more) == weights(take(opened(search(base, 6), tmp_path / "t")))

    def test_results_reach_the_sampler(self, base: Path, tmp_path: Path) -> None:
        """TPE learns from finished trials, also from those of an earlier process."""
        tpe = search(base, 20, search={"sampler": "tpe"})
        for first in (True, False):
            one = opened(tpe, tmp_path / "s")
            for _ in range(10):
                trial = one.next()
                assert trial is not None
                finish(trial, mse=(trial.point["loss.mmd_weight"] - 7) ** 2)
            if first:
                assert len(one.trials) == 10
        last = weights(one.trials)[-8:]
        # Of eight random draws, six lie in (5.5, 8.5) once in 50; here the seed is fixed.
        assert sum(5.5 < weight < 8.5 for weight in last) >= 6

    def test_killed_at_any_write(
        self, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No proposal is lost or made twice, whichever file was the last one."""
        whole = weights(take(opened(search(base, 3), tmp_path / "whole")))
        replace = os.replace
        for cut in range(0, 24, 5):
            left = iter(range(cut))

            def dying(old: str, new: Path, left: Any = left) -> None:
                if next(left, None) is None:
                    raise tiny.Crash
                replace(old, new)

            directory = tmp_path / str(cut)
            monkeypatch.setattr(os, "replace", dying)
            try:
                take(opened(search(base, 3), directory))
            except tiny.Crash:
                pass
            monkeypatch.setattr(os, "replace", replace)
            one = opened(search(base, 3), directory)
            found = take(one)
            assert sorted(weights(found)) == sorted(whole), cut
            assert len(list((directory / "trials").glob("*/trial.json"))) == 3, cut

    def test_an_invalid_corner_is_refused_before_anything_is_written(
        self, base: Path, tmp_path: Path
    ) -> None:
        wrong = search(base, space={"loss.mmd_weight": {"uniform": [-1, 5]}})
        with pytest.raises(InputError, match=r"trial loss.mmd_weight=-1.0: loss.mmd_weight is -1"):
            plan.make(wrong, tmp_path / "s")
        assert not (tmp_path / "s").exists()

    def test_points_that_make_one_trial_are_run_once(self, base: Path, tmp_path: Path) -> None:
        same = search(base, space={"loss.mmd_weight": {"grid": [10, 10.0, "10", 3]}})
        one = opened(same, tmp_path / "s")
        assert len(take(one)) == 2 and not one.has_next()
