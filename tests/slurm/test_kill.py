"""Jobs that are killed or told to leave: the collected curve is that of a quiet evaluation."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import files
from cluster.evaluations.curve.plan import Evaluation
from gencomp.cli import main
from slurm.jobs import ledger, restartable
from slurm.jobs.job import Job
from slurm.kinds.curve import CurveJobs, Measure
from tests.curves import parts
from tests.slurm.conftest import options
from tests.waiting import wait_for

# Chains are saved so often that each kill hits a job that has a file to go on from; pilot and
# blocks take half a second or more on a fast machine.
SAVE_SECONDS = 0.05
LONG: dict[str, Any] = {
    "temperatures": 1000,
    "pilot_temperatures": 500,
    "points": 20,
    "leapfrog": 1,
    "block": 2,
}


class Killer(threading.Thread):
    """Kills jobs that have chains to lose, at random moments: so many of each stage."""

    def __init__(self, directory: Path, kills: dict[str, int]) -> None:
        super().__init__(daemon=True)
        self._directory, self._left = directory, Counter(kills)
        self._draw = random.Random(5)
        self._killed: set[str] = set()
        self.over = threading.Event()

    @property
    def left(self) -> int:
        return self._left.total()

    def run(self) -> None:
        while self.left and not self.over.wait(0.01):
            if not (self._directory / "jobs.json").exists():
                continue
            evaluation = CurveJobs.open(self._directory)
            victims = [job for job in ledger.read(evaluation) if self._works(evaluation, job)]
            if not victims:
                continue
            job = self._draw.choice(victims)
            time.sleep(self._draw.uniform(0, 0.1))
            if self._works(evaluation, job):
                os.kill(files.read_json(evaluation.progress(job.name))["pid"], signal.SIGKILL)
                self._killed.add(job.name)
                self._left[job.stage] -= 1

    def _works(self, jobs: CurveJobs, job: Job) -> bool:
        progress = files.read_json(jobs.progress(job.name)) or {"ended": "before it began"}
        evaluation = jobs.evaluation
        chains = [evaluation.chains(block) for block in job.blocks] or [evaluation.pilot_chains]
        met = job.name not in self._killed and any(path.exists() for path in chains)
        return met and progress["ended"] is None and self._left[job.stage] > 0


def curve(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in ("curve.json", "curve.parquet")}


def disturbed(words: list[str], directory: Path, kills: dict[str, int]) -> None:
    """The same command, again and again until all is there."""
    killer = Killer(directory, kills)
    killer.start()
    codes = []
    while not codes or codes[-1] != 0:
        codes.append(main(words))
        assert len(codes) <= sum(kills.values()) + 1
    killer.over.set()
    killer.join()
    assert not killer.left, "jobs were over before they were killed"
    assert codes[0] == 1


def quiet(words: list[str], directory: Path) -> None:
    """Everything in this process, as one job of each kind."""
    assert main([*words, "--executor", "debug", "--jobs", "1"]) == 0
    assert CurveJobs.open(directory).collected


@pytest.mark.slow
def test_killed_jobs_leave_no_trace(
    own: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restartable, "SAVE_SECONDS", SAVE_SECONDS)
    words = ["slurm", "ais", *own, *options(**LONG, images=2, bdmc_images=2, bdmc_betas="0.1")]
    quiet([*words, "--output", "quiet"], tmp_path / "quiet")
    words += ["--output", "killed", "--executor", "local", "--max-parallel", "2"]
    disturbed(words, tmp_path / "killed", {"pilot": 1, "bdmc": 1})
    assert parts(Evaluation.open("quiet")) == parts(Evaluation.open("killed"))
    assert curve(tmp_path / "quiet") == curve(tmp_path / "killed")


def test_the_preemption_signal_saves_and_requeues(own: list[str], tmp_path: Path) -> None:
    from submitit.local.local import LocalExecutor

    words = ["slurm", "ais", *own, *options(**LONG, images=2), "--executor", "debug"]
    assert main(words) == 0
    whole = Evaluation.open("curve")
    hit = replace(whole, path=tmp_path / "hit")
    jobs = CurveJobs(hit)
    jobs.logs.mkdir(parents=True)
    for name in ("plan.json", "tuning.npz"):
        shutil.copy(whole.path / name, hit.path / name)
    executor = LocalExecutor(jobs.logs)
    executor.update_parameters(timeout_min=60)
    handle = executor.submit(Measure("measure-1", str(hit.path), [0], SAVE_SECONDS))
    progress = jobs.progress("measure-1")
    try:
        assert wait_for(hit.chains(0).exists), "the job does not start"
        # The controller forwards only SIGTERM: the signal goes to the job itself, as from Slurm.
        os.kill(files.read_json(progress)["pid"], signal.SIGUSR2)
        handle.result()
    finally:
        handle._process.wait()
    assert files.read_json(progress)["attempt"] == 2
    assert parts(whole) == parts(hit)


@pytest.mark.slow
def test_an_array_of_eight_with_killed_jobs(
    own: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restartable, "SAVE_SECONDS", SAVE_SECONDS)
    more = {"images": 16, "bdmc_images": 4, "bdmc_betas": "0.05 0.1", "jobs": 8}
    words = ["slurm", "ais", *own, *options(**LONG, **more)]
    quiet([*words, "--output", "quiet"], tmp_path / "quiet")
    words += ["--output", "killed", "--executor", "local", "--max-parallel", "4"]
    disturbed(words, tmp_path / "killed", {"pilot": 1, "measure": 3, "bdmc": 3})
    assert parts(Evaluation.open("quiet")) == parts(Evaluation.open("killed"))
    assert curve(tmp_path / "quiet") == curve(tmp_path / "killed")
