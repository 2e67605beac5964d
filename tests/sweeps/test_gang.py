"""Trials of several workers on a Ray cluster that outlives the sweep's processes.

This file is also the program that holds the cluster.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import run_status
from cluster.checkpoints import store
from cluster.logs import json_lines, process_log
from cluster.runs import Run
from sweeps import proposals
from sweeps.results import read_results
from tests import processes, tiny
from tests.processes import ROOT, Driver
from tests.waiting import PATIENCE, wait_for

CPUS = 5


class Holder:
    """A Ray cluster in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=processes.ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "holder").open("w"),
            text=True,
        )
        self.environment: dict[str, str] = self._read()

    def is_empty(self) -> bool:
        """Whether no CPU is taken and no placement group reserved."""
        assert self._process.stdin is not None
        self._process.stdin.write("?\n")
        self._process.stdin.flush()
        taken = self._read()
        return bool(taken["cpus"] == 0 and taken["groups"] == 0)

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE)

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@pytest.fixture
def holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Holder]:
    """A cluster that command lines started by this test join."""
    one = Holder(tmp_path)
    monkeypatch.setattr(processes, "ENVIRONMENT", processes.ENVIRONMENT | one.environment)
    yield one
    one.close()


@pytest.fixture
def file(photos: Path, generator_run: Path, tmp_path: Path) -> Path:
    """Trials of two workers: the search proposes 1 code channel, then 3, which is worse here."""
    overrides = {
        "training.steps": 24,
        "training.checkpoint_every": 2,
        "training.sample_every": 1000,
        "evaluation.every": 6,
    }
    base = tiny.write(tiny.codec(photos, generator_run, overrides), tmp_path / "codec.yaml")
    sweep = {
        "base": str(base),
        "space": {"networks.code_channels": {"grid": [1, 2, 3]}},
        "search": {"sampler": "tpe"},
        "seed": 3,
        "budget": {"trials": 2},
        "objective": {"minimise": "nominal_bpp"},
        "scheduler": {"grace": 12, "reduction": 2},
        "workers": 2,
        "concurrent": 1,
    }
    path = tmp_path / "gangs.yaml"
    path.write_text(yaml.safe_dump(sweep))
    return path


def begun(directory: Path) -> list[Path]:
    """The trials that have a checkpoint, in the order of their proposals."""
    file = directory / "trials.json"
    listed = json.loads(file.read_text()) if file.exists() else []
    paths = [directory / "trials" / id_ for id_ in listed]
    return [path for path in paths if list((path / "checkpoints").glob("step-*/manifest.json"))]


def newest(trial: Path) -> int:
    found = store.newest(Run(trial).checkpoints)
    return 0 if found is None else found.step


def process_of(trial: Path, rank: int) -> int:
    """The process number of a rank at its newest start."""
    return int(json_lines.read(process_log.of_rank(trial, rank))[-1]["pid"])


def starts(trial: Path) -> list[int]:
    rows = json_lines.read(process_log.of_rank(trial, 0))
    return [row["step"] for row in rows if row.get("event") == "start"]


def clocks(trial: Path, until: int) -> list[tuple[int, float]]:
    rows = json_lines.read(Run(trial).metrics)
    return [(row["step"], row["time"]) for row in rows if row["step"] <= until]


@pytest.mark.slow
def test_a_search_of_gangs_whose_driver_and_worker_are_killed(
    file: Path, holder: Holder, tmp_path: Path, drive: Callable[..., Driver]
) -> None:
    directory = tmp_path / "runs" / "gangs"
    words = ["sweep", str(file), "--runs", str(tmp_path / "runs")]

    first = drive(*words)
    first.wait_for(lambda: bool(begun(directory)))
    (trial,) = begun(directory)
    first.crash()
    # Whoever dies, the cluster takes everything back.
    assert wait_for(holder.is_empty, pause=0.5)
    saved = newest(trial)
    before = clocks(trial, saved)
    assert read_results(directory).rows[0]["status"] == "pending"

    second = drive(*words)
    second.wait_for(lambda: newest(trial) > saved)
    os.kill(process_of(trial, 1), signal.SIGKILL)
    assert second.end() == 0, second.words()
    assert wait_for(holder.is_empty, pause=0.5)

    # One trial, three starts, each from a checkpoint; what was logged before stays.
    assert [start > 0 for start in starts(trial)] == [False, True, True]
    assert starts(trial)[1] == saved and clocks(trial, saved) == before
    (failure,) = [
        row["message"]
        for row in json_lines.read(process_log.of_driver(trial))
        if row["level"] == "WARNING"
    ]
    assert failure.startswith("rank 1 (process ") and "died: it was killed" in failure
    assert failure in second.out.read_text()

    results = read_results(directory)
    assert [row["status"] for row in results.rows] == ["finished", "stopped"]
    assert results.rows[0]["trial"] == trial.name and results.rows[1]["step"] == 12
    assert run_status.read(directory / "trials" / results.rows[1]["trial"]).failures == []
    assert len(proposals.read(directory)) == 2


def _hold() -> None:
    """A cluster; for each line on stdin what is taken of it."""
    from cluster import ray_runtime

    with ray_runtime.cluster(cpus=CPUS):
        import ray  # only now: it reads the environment
        from ray.util import placement_group_table

        environment = {
            "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
            "RAY_AUTH_TOKEN_PATH": os.environ["RAY_AUTH_TOKEN_PATH"],
        }
        print(json.dumps(environment), flush=True)
        for _ in sys.stdin:
            groups = [g for g in placement_group_table().values() if g["state"] != "REMOVED"]
            free = ray.available_resources().get("CPU", 0)
            print(json.dumps({"cpus": CPUS - free, "groups": len(groups)}), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    _hold()
