"""Which trial comes next, within budgets of trials and of time, whoever was killed before."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from cluster import runs
from cluster.logs import json_lines
from gencomp.errors import InputError
from sweeps import trials
from sweeps.sweep_file import Sweep
from sweeps.time_budget import Clock
from sweeps.trainable import capacity
from sweeps.trial_queue import Supply
from sweeps.trials import Trial
from tests import tiny


@pytest.fixture
def base(photos: Path, generator_run: Path, tmp_path: Path) -> Path:
    return tiny.write(tiny.codec(photos, generator_run), tmp_path / "codec.yaml")


def sweep(base: Path, **parts: Any) -> Sweep:
    return Sweep.model_validate(
        {"base": str(base), "space": {"loss.mmd_weight": {"grid": [0, 1, 2, 3]}}} | parts
    )


def search(base: Path, count: int = 4, **parts: Any) -> Sweep:
    made = {"space": {"loss.mmd_weight": {"uniform": [0, 9]}}, "search": {"sampler": "random"}}
    return sweep(base, budget={"trials": count}, **made | parts)


def supply(of: Sweep, directory: Path) -> Supply:
    """As a process that is only starting sees it."""
    planned = trials.plan(of, directory)
    trials.write_plan(of, planned, directory)
    return Supply(of, planned, directory)


def weights(found: list[Trial]) -> list[float]:
    return [trial.point["loss.mmd_weight"] for trial in found]


def take(one: Supply) -> list[Trial]:
    return list(iter(one.next, None))


def finish(trial: Trial, mse: float = 0.5) -> None:
    json_lines.append(runs.Run(trial.path).metrics, {"step": 5, "test/mse": mse, "test/bpp": 1.0})
    (trial.path / "result.json").write_text("{}")
    trial.set_status("finished")


class TestPoints:
    def test_what_was_begun_comes_first_and_what_has_ended_never(
        self, base: Path, tmp_path: Path
    ) -> None:
        first = supply(sweep(base), tmp_path / "s")
        none, one, _, three = first.trials
        finish(none)
        one.set_status("stopped")
        three.started()
        assert weights(take(supply(sweep(base), tmp_path / "s"))) == [3, 2]
        three.set_status("failed", "the disk was full")
        assert weights(take(supply(sweep(base), tmp_path / "s"))) == [3, 2]

    def test_a_budget_of_trials_counts_all_that_were_begun(
        self, base: Path, tmp_path: Path
    ) -> None:
        few = sweep(base, budget={"trials": 3})
        one = supply(few, tmp_path / "s")
        found = take(one)
        assert weights(found) == [0, 1, 2] and not one.has_next() and not one.is_complete()
        for trial in found[:2]:
            trial.started()
        finish(found[0])
        found[1].set_status("failed", "broken")
        # One that failed may be started again; it is no new one.
        assert weights(take(supply(few, tmp_path / "s"))) == [1, 2]
        assert weights(take(supply(sweep(base, budget={"trials": 2}), tmp_path / "s"))) == [1]
        assert weights(take(supply(sweep(base), tmp_path / "s"))) == [1, 2, 3]

    def test_starts_and_the_last_error_are_kept(self, base: Path, tmp_path: Path) -> None:
        trial = supply(sweep(base), tmp_path / "s").trials[0]
        assert not trial.was_begun()
        trial.started()
        trial.set_status("pending", "the process died")
        trial.started()
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
        one = supply(search(base), tmp_path / "s")
        assert one.trials == [] and one.has_next()
        found = take(one)
        assert len({trial.id for trial in found}) == 4 and found == one.trials
        assert not one.has_next() and not one.is_complete()
        assert all(one.trial(trial.id) is trial for trial in found)
        for trial in found:
            finish(trial)
        assert one.is_complete()
        again = supply(search(base), tmp_path / "s")
        assert take(again) == [] and again.is_complete()
        # A larger budget goes on where the smaller one ended, as one that was so large at once.
        more = [*found, *take(supply(search(base, 6), tmp_path / "s"))]
        assert weights(more) == weights(take(supply(search(base, 6), tmp_path / "t")))

    def test_results_reach_the_sampler(self, base: Path, tmp_path: Path) -> None:
        """TPE learns from finished trials, also from those of an earlier process."""
        tpe = search(base, 20, search={"sampler": "tpe"})
        for first in (True, False):
            one = supply(tpe, tmp_path / "s")
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
        whole = weights(take(supply(search(base, 3), tmp_path / "whole")))
        write = runs.write_text
        for cut in range(0, 24, 5):
            left = iter(range(cut))

            def dying(path: Path, text: str, left: Any = left) -> None:
                if next(left, None) is None:
                    raise tiny.Crash
                write(path, text)

            directory = tmp_path / str(cut)
            monkeypatch.setattr(runs, "write_text", dying)
            try:
                take(supply(search(base, 3), directory))
            except tiny.Crash:
                pass
            monkeypatch.setattr(runs, "write_text", write)
            one = supply(search(base, 3), directory)
            found = take(one)
            assert sorted(weights(found)) == sorted(whole), cut
            assert len(list((directory / "trials").glob("*/trial.json"))) == 3, cut

    def test_an_invalid_corner_is_refused_before_anything_is_written(
        self, base: Path, tmp_path: Path
    ) -> None:
        wrong = search(base, space={"loss.mmd_weight": {"uniform": [-1, 5]}})
        with pytest.raises(InputError, match=r"trial loss.mmd_weight=-1.0: loss.mmd_weight is -1"):
            trials.plan(wrong, tmp_path / "s")
        assert not (tmp_path / "s").exists()

    def test_points_that_make_one_trial_are_run_once(self, base: Path, tmp_path: Path) -> None:
        same = search(base, space={"loss.mmd_weight": {"grid": [10, 10.0, "10", 3]}})
        one = supply(same, tmp_path / "s")
        assert len(take(one)) == 2 and not one.has_next()


class TestClock:
    def test_it_goes_on_in_the_next_process(self, tmp_path: Path) -> None:
        first = Clock(tmp_path, 100.0)
        assert not first.expired()
        time.sleep(0.2)
        first.note()
        second = Clock(tmp_path, 100.0)
        assert 0.1 < time.time() + 100 - second.deadline < 60
        assert Clock(tmp_path, 0.05).expired()
        assert not Clock(tmp_path, float("inf")).expired()


NODES: list[dict[str, Any]] = [
    {"Alive": True, "Resources": {"CPU": 5.0, "GPU": 2.0, "memory": 9.0}},
    {"Alive": True, "Resources": {"CPU": 1.0, "GPU": 4.0}},
    {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    {"Alive": True, "Resources": {"memory": 9.0}},
]


class TestCapacity:
    @pytest.mark.parametrize(
        ("workers", "gpu", "most"), [(1, False, 6), (2, False, 3), (4, False, 1), (3, True, 1)]
    )
    def test_trials_that_fit_whole(self, workers: int, gpu: bool, most: int) -> None:
        assert capacity(NODES, workers, gpu) == most

    def test_one_that_never_fits_is_refused(self) -> None:
        with pytest.raises(InputError, match="wants 7 CPUs, but the cluster has 6"):
            capacity(NODES, 7, False)
        with pytest.raises(InputError, match=r"wants 4 GPUs \(each with a CPU\), but .* has 3"):
            capacity(NODES, 4, True)
