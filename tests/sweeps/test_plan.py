"""Trials know themselves by what they are, never by their place in a sweep."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from cluster import runs
from cluster.logs import json_lines
from gencomp.errors import InputError
from sweeps import trials
from sweeps.sweep_file import Objective, Sweep
from tests import tiny


@pytest.fixture
def base(photos: Path, generator_run: Path, tmp_path: Path) -> Path:
    return tiny.write(tiny.codec(photos, generator_run), tmp_path / "codec.yaml")


def sweep(base: Path, **parts: Any) -> Sweep:
    made: dict[str, Any] = {
        "base": str(base),
        "space": {"networks.code_channels": {"grid": [1, 2]}, "loss.mmd_weight": {"grid": [0, 10]}},
        "group_by": "networks.code_channels",
    }
    return Sweep.model_validate(made | parts)


def planned(sweep_: Sweep, directory: Path) -> list[trials.Trial]:
    found = trials.plan(sweep_, directory)
    trials.write_plan(sweep_, found, directory)
    return found


def test_identity_does_not_depend_on_the_order(base: Path, tmp_path: Path) -> None:
    turned = {"loss.mmd_weight": {"grid": [10, 0, 3]}, "networks.code_channels": {"grid": [2, 1]}}
    a = {json.dumps(t.point, sort_keys=True): t.id for t in trials.plan(sweep(base), tmp_path)}
    b = {
        json.dumps(t.point, sort_keys=True): t.id
        for t in trials.plan(sweep(base, space=turned), tmp_path)
    }
    assert a.items() <= b.items() and len(a) == 4 and len(b) == 6
    assert len(set(b.values())) == 6


def test_points_that_are_the_same_trial_are_one(base: Path, tmp_path: Path) -> None:
    twice = {"loss.mmd_weight": {"grid": [10, 10.0, "10"]}}
    assert len(trials.plan(sweep(base, space=twice, group_by=None), tmp_path)) == 1


def test_planning_writes_nothing(base: Path, tmp_path: Path) -> None:
    before = tiny.tree(tmp_path)
    trials.plan(sweep(base), tmp_path / "sweep")
    assert tiny.tree(tmp_path) == before and not (tmp_path / "sweep").exists()


def test_a_point_that_makes_an_invalid_recipe(base: Path, tmp_path: Path) -> None:
    wrong = {"networks.code_channels": {"grid": [2, 0]}}
    with pytest.raises(
        InputError, match=r"trial networks.code_channels=0: networks.code_channels is 0, but"
    ):
        trials.plan(sweep(base, space=wrong), tmp_path / "sweep")
    too_many = {"networks.code_channels": {"grid": [2, 9]}}
    with pytest.raises(InputError, match="code_channels is 9, allowed are 1 to"):
        trials.plan(sweep(base, space=too_many), tmp_path / "sweep")
    unknown = {"loss.lambda": {"grid": [1]}}
    with pytest.raises(InputError, match=r"unknown key loss.lambda; allowed here are mmd_weight"):
        trials.plan(sweep(base, space=unknown, group_by=None), tmp_path / "sweep")
    for key in ("loss.mmd_wieght", "mmd_weight", "training.mmd_weight"):
        near = {key: {"grid": [1]}}
        with pytest.raises(InputError, match=rf"unknown key {key}; did you mean loss.mmd_weight\?"):
            trials.plan(sweep(base, space=near, group_by=None), tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_a_plan_cut_short_is_completed(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any file of the plan: the same command goes on, and what is done stays."""
    write = runs.write_text
    total = 0

    def counting(path: Path, text: str) -> None:
        nonlocal total
        total += 1
        write(path, text)

    monkeypatch.setattr(runs, "write_text", counting)
    planned(sweep(base), tmp_path / "whole")
    for cut in range(0, total, 5):
        left = iter(range(cut))

        def dying(path: Path, text: str, left: Any = left) -> None:
            if next(left, None) is None:
                raise tiny.Crash
            write(path, text)

        monkeypatch.setattr(runs, "write_text", dying)
        with pytest.raises(tiny.Crash):
            planned(sweep(base), tmp_path / str(cut))
        monkeypatch.setattr(runs, "write_text", write)
        found = planned(sweep(base), tmp_path / str(cut))
        assert [t.status() for t in found] == ["pending"] * 4


class TestStatus:
    def test_is_kept_when_the_plan_is_made_again(self, base: Path, tmp_path: Path) -> None:
        first, second, third, _ = planned(sweep(base), tmp_path)
        first.set_status("stopped")
        second.set_status("failed", "the disk was full")
        (third.path / "result.json").write_text('{"mse": 1}')
        again = planned(sweep(base), tmp_path)
        assert [t.status() for t in again] == ["stopped", "failed", "finished", "pending"]
        assert again[1].state()["error"] == "the disk was full"
        assert again[0].state()["point"] == first.point

    def test_evaluations_are_read_from_the_log(self, base: Path, tmp_path: Path) -> None:
        trial = planned(sweep(base), tmp_path)[0]
        assert trial.evaluations() == []
        log = runs.Run(trial.path).metrics
        json_lines.append(log, {"step": 1, "codec/loss": 3.0})
        json_lines.append(
            log, {"step": 5, "epoch": 1.0, "time": 2.0, "test/mse": 0.5, "test/mmd": 0.1}
        )
        json_lines.append(log, {"step": 6, "codec/loss": 3.0})
        assert trial.evaluations() == [{"step": 5, "mse": 0.5, "mmd": 0.1}]


class TestTable:
    @pytest.fixture
    def four(self, base: Path, tmp_path: Path) -> list[trials.Trial]:
        """1 channel: λ 0 finished (0.3), λ 10 stopped (0.2); 2: stopped (0.1), failed."""
        found = planned(sweep(base), tmp_path / "sweep")
        for trial, mse in zip(found[:3], (0.3, 0.2, 0.1), strict=True):
            json_lines.append(
                runs.Run(trial.path).metrics, {"step": 5, "test/mse": mse, "test/bpp": 0.5}
            )
        (found[0].path / "result.json").write_text('{"mse": 0.3}')
        found[1].set_status("stopped")
        found[2].set_status("stopped")
        found[3].set_status("failed", "broken")
        return found

    def test_rows_best_first(self, four: list[trials.Trial]) -> None:
        rows = trials.table(four, Objective())
        assert [row["score"] for row in rows] == [0.1, 0.2, 0.3, math.inf]
        assert rows[0]["networks.code_channels"] == 2 and rows[0]["step"] == 5
        assert rows[3]["status"] == "failed" and rows[3]["error"] == "broken"

    def test_best_of_each_group_prefers_the_finished(self, four: list[trials.Trial]) -> None:
        rows = trials.table(four, Objective())
        best = trials.best_of_each(rows, "networks.code_channels")
        assert [(r["networks.code_channels"], r["status"]) for r in best] == [
            (1, "finished"),
            (2, "stopped"),
        ]
        (one,) = trials.best_of_each(rows, None)
        assert one["status"] == "finished"

    def test_as_parquet_and_back(
        self, base: Path, four: list[trials.Trial], tmp_path: Path
    ) -> None:
        rows = trials.table(four, Objective())
        trials.write_table(rows, tmp_path / "sweep")
        read = trials.read_results(tmp_path / "sweep")
        assert [row["trial"] for row in read.rows] == [row["trial"] for row in rows]
        assert [r["status"] for r in read.best()] == ["finished", "stopped"]
        assert read.run(read.rows[0]).path == four[2].path

    def test_a_directory_without_results(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="has no results of a sweep"):
            trials.read_results(tmp_path)
