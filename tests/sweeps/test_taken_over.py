"""A sweep that another process has taken over: this one writes nothing more."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from cluster import locks
from cluster.files import locked
from cluster.locks import LockLost
from cluster.runs import Run
from sweeps import plan
from sweeps.ray_tune import TrialStatusCallback
from sweeps.results import ResultsTable
from sweeps.sweep_file import Sweep
from sweeps.time_budget import TimeBudget
from sweeps.trial import Trial
from sweeps.trial_queue import TrialQueue
from tests import tiny
from tests.processes import Driver

CONTINUOUS = {"space": {"loss.mmd_weight": {"uniform": [1, 9]}}}
KINDS: dict[str, dict[str, Any]] = {
    "grid": {"space": {"loss.mmd_weight": {"grid": [1, 2]}}},
    "search": CONTINUOUS | {"search": {"sampler": "random"}, "budget": {"trials": 3}},
    "population": CONTINUOUS | {"population": {"size": 2, "every": 5}},
}


def content(directory: Path) -> dict[str, bytes]:
    return {k: v for k, v in tiny.tree(directory).items() if not k.startswith("lock")}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_more_is_written(
    kind: str, photos: Path, generator_run: Path, tmp_path: Path
) -> None:
    base = tiny.write(tiny.codec(photos, generator_run), tmp_path / "codec.yaml")
    of = Sweep.model_validate({"base": str(base)} | KINDS[kind])
    directory = tmp_path / "sweep"
    directory.mkdir()
    with locked(directory) as lease:
        planned = plan.make(of, directory)
        plan.write(of, planned, directory, lease.require)
        queue = TrialQueue(of, planned, directory, lease.require)
        trial = queue.next()
        assert trial is not None
        if kind == "population":
            for one in queue.trials:
                one.set_status("stopped")
        table = ResultsTable(queue.trials, of.objective, directory, lease.require)
        budget = TimeBudget(directory, 9, lease.require)
        callback = TrialStatusCallback(queue, lambda *_: None)
        tunes = SimpleNamespace(config={"trial": {"id": trial.id}}, error_file=None)
        assert locks._claim(directory, lease.number + 1, None) is not None

        before = content(directory)
        writers: list[Callable[[], object]] = [
            lambda: plan.write(of, planned, directory, lease.require),
            lambda: TrialQueue(of, planned, directory, lease.require).next(),
            table.write,
            budget.save,
            lambda: callback.on_trial_start(1, [], tunes),
            lambda: callback.on_trial_complete(1, [], tunes),
            lambda: callback.on_trial_recover(1, [], tunes),
            lambda: callback.on_trial_error(1, [], tunes),
        ]
        # A trial of a grid is there before it is handed out.
        for write in writers[:1] + writers[2:] if kind == "grid" else writers:
            with pytest.raises(LockLost, match=rf"sweep was taken over by process {os.getpid()}"):
                write()
        assert content(directory) == before


@pytest.mark.slow
def test_its_driver_leaves_at_once(
    photos: Path, generator_run: Path, tmp_path: Path, drive: Callable[..., Driver]
) -> None:
    """It is as if stopped for long on a shared file system: its trials end with it."""
    long = {"training.steps": 100_000, "training.sample_every": 100_000}
    base = tiny.write(tiny.codec(photos, generator_run, long), tmp_path / "codec.yaml")
    file = tmp_path / "long.yaml"
    file.write_text(yaml.safe_dump({"base": str(base)} | KINDS["grid"]))
    directory = tmp_path / "runs" / "long"
    driver = drive("sweep", str(file), "--runs", str(tmp_path / "runs"))
    driver.wait_for(lambda: any(directory.glob("trials/*/metrics.jsonl")))
    found = locks.newest(directory)
    assert found is not None and found[1].pid == driver.process.pid
    assert locks._claim(directory, found[0] + 1, None) is not None
    table = (directory / "results.parquet").read_bytes()
    assert driver.end() == 1
    assert f"LockLost: {directory} was taken over by process {os.getpid()}" in driver.words()
    assert (directory / "results.parquet").read_bytes() == table
    for path in (directory / "trials").iterdir():
        assert Trial(path.name, path, {}, Run(path).recipe()).status() == "pending"
