"""The plan of a sweep: trials know themselves by what they are, never by their place in it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cluster import run_entry
from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe
from sweeps import plan
from tests import tiny
from tests.sweeps.small_sweeps import planned, rates_and_weights


def test_identity_does_not_depend_on_the_order(base: Path, tmp_path: Path) -> None:
    turned = {"loss.mmd_weight": {"grid": [10, 0, 3]}, "networks.code_channels": {"grid": [2, 1]}}
    a = {
        json.dumps(t.point, sort_keys=True): t.id
        for t in plan.make(rates_and_weights(base), tmp_path)
    }
    b = {
        json.dumps(t.point, sort_keys=True): t.id
        for t in plan.make(rates_and_weights(base, space=turned), tmp_path)
    }
    assert a.items() <= b.items() and len(a) == 4 and len(b) == 6
    assert len(set(b.values())) == 6


def test_points_that_are_the_same_trial_are_one(base: Path, tmp_path: Path) -> None:
    twice = {"loss.mmd_weight": {"grid": [10, 10.0, "10"]}}
    assert len(plan.make(rates_and_weights(base, space=twice, group_by=None), tmp_path)) == 1


def test_planning_writes_nothing(base: Path, tmp_path: Path) -> None:
    before = tiny.tree(tmp_path)
    plan.make(rates_and_weights(base), tmp_path / "sweep")
    assert tiny.tree(tmp_path) == before and not (tmp_path / "sweep").exists()


def test_a_point_that_makes_an_invalid_recipe(base: Path, tmp_path: Path) -> None:
    wrong = {"networks.code_channels": {"grid": [2, 0]}}
    with pytest.raises(
        InputError, match=r"trial networks.code_channels=0: networks.code_channels is 0, but"
    ):
        plan.make(rates_and_weights(base, space=wrong), tmp_path / "sweep")
    too_many = {"networks.code_channels": {"grid": [2, 9]}}
    with pytest.raises(InputError, match="code_channels is 9, allowed are 1 to"):
        plan.make(rates_and_weights(base, space=too_many), tmp_path / "sweep")
    unknown = {"loss.lambda": {"grid": [1]}}
    with pytest.raises(InputError, match=r"unknown key loss.lambda; allowed here are mmd_weight"):
        plan.make(rates_and_weights(base, space=unknown, group_by=None), tmp_path / "sweep")
    for key in ("loss.mmd_wieght", "mmd_weight", "training.mmd_weight"):
        near = rates_and_weights(base, space={key: {"grid": [1]}}, group_by=None)
        with pytest.raises(InputError, match=rf"unknown key {key}; did you mean loss.mmd_weight\?"):
            plan.make(near, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_a_plan_cut_short_is_completed(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any file of the plan: the same command goes on, and what is done stays."""
    replace = os.replace
    total = 0

    def counting(old: str, new: Path) -> None:
        nonlocal total
        total += 1
        replace(old, new)

    monkeypatch.setattr(os, "replace", counting)
    planned(rates_and_weights(base), tmp_path / "whole")
    for cut in range(0, total, 5):
        left = iter(range(cut))

        def dying(old: str, new: Path, left: Any = left) -> None:
            if next(left, None) is None:
                raise tiny.Crash
            replace(old, new)

        monkeypatch.setattr(os, "replace", dying)
        with pytest.raises(tiny.Crash):
            planned(rates_and_weights(base), tmp_path / str(cut))
        monkeypatch.setattr(os, "replace", replace)
        found = planned(rates_and_weights(base), tmp_path / str(cut))
        assert [t.status() for t in found] == ["pending"] * 4


def test_a_restart_looks_up_once_what_trials_share(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No network is built for a trial that exists, and no recipe is written that is there."""
    of = rates_and_weights(base)
    before = planned(of, tmp_path / "sweep")
    looked: list[str] = []
    monkeypatch.setattr(run_entry, "require_buildable", lambda *_: looked.append("networks"))
    hashes = run_entry.data.hashes

    def counted(recipe: BaseRecipe) -> dict[str, str]:
        looked.append("data")
        return hashes(recipe)

    monkeypatch.setattr(run_entry.data, "hashes", counted)
    times = [(trial.path / "recipe.yaml").stat().st_mtime_ns for trial in before]
    again = planned(of, tmp_path / "sweep")
    assert again == before and looked == ["data"]
    assert times == [(trial.path / "recipe.yaml").stat().st_mtime_ns for trial in again]
