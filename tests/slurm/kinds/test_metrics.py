"""`gencomp slurm evaluate` on this machine: the same parts as in one process, whatever stops it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import files
from cluster.evaluations.work import MakePart
from cluster.runs import Run
from gencomp.cli import main
from gencomp.errors import InputError
from slurm.jobs import ledger, status
from slurm.kinds import open_jobs
from slurm.kinds.metrics import MeasureMetrics, MetricJobs
from tests import tiny
from tests.waiting import wait_for

SIZES = ["--images", "12", "--block", "4", "--batch-size", "2"]


def words(run: Run, *more: str) -> list[str]:
    return ["slurm", "evaluate", str(run.path), *SIZES, "--executor", "local", *more]


def directory(run: Run, name: str = "metrics") -> Path:
    return run.path / "evaluations" / name


def parts(path: Path) -> dict[str, bytes]:
    return tiny.tree(path / "parts")


def test_from_submission_to_result(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(run, "--jobs", "2")) == 0
    out = capsys.readouterr().out
    assert "3 of 3 blocks to measure, 2 jobs on this machine" in out
    assert "all 3 blocks are finished; gencomp slurm collect" in out

    assert main(["slurm", "status", str(directory(run))]) == 0
    out = capsys.readouterr().out
    assert "3 of 3 blocks are finished" in out
    rows = status.rows(open_jobs(directory(run)))
    assert [(row.state, row.done, row.total) for row in rows] == [("done", 8, 8), ("done", 4, 4)]

    assert main(["slurm", "collect", str(directory(run)), "--require-all"]) == 0
    assert "12 images, complete" in capsys.readouterr().out
    result = json.loads((directory(run) / "metrics.json").read_text())
    assert set(result["metrics"]) == {"mse", "psnr", "mean_psnr", "ms_ssim"}

    # In one process of the other command: the same parts and the same numbers.
    assert main(["evaluate", str(run.path), *SIZES, "--name", "here"]) == 0
    assert parts(directory(run)) == parts(directory(run, "here"))
    here = json.loads((directory(run, "here") / "metrics.json").read_text())
    assert here == result

    # That command goes on with what jobs have left, and jobs with what it has left.
    (directory(run) / "parts" / "block-00001.safetensors").unlink()
    capsys.readouterr()
    assert main(["slurm", "collect", str(directory(run))]) == 0
    assert "PARTIAL: missing are 1 of 3 blocks (4 images): block 1" in capsys.readouterr().out
    assert main(words(run, "--jobs", "4")) == 0
    assert "1 of 3 blocks to measure, 1 jobs" in capsys.readouterr().out
    assert main(words(run)) == 0
    assert "all 3 blocks are finished" in capsys.readouterr().out
    assert parts(directory(run)) == parts(directory(run, "here"))

    assert main(words(run, "--seed", "9")) == 2
    assert "seed was 7, would be 9" in capsys.readouterr().err


def test_a_dry_run_shows_the_script_and_writes_nothing(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tiny.tree(run.path)
    assert main(words(run, "--dry-run", "--jobs", "2", "--partition", "cpu")) == 0
    out = capsys.readouterr().out
    assert out.count("#!/bin/bash") == 1
    assert "#SBATCH --job-name=gencomp-metrics-g-metrics" in out
    assert "#SBATCH --array=0-1%2" in out
    assert f"# MeasureMetrics(name='measure-0', directory='{directory(run)}', blocks=[0, 2])" in out
    assert tiny.tree(run.path) == before


def test_all_in_this_process(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words(run), "--executor", "debug"]) == 0
    assert main(["slurm", "collect", str(directory(run))]) == 0
    assert "12 images, complete" in capsys.readouterr().out
    assert main(["slurm", "cancel", str(directory(run))]) == 0
    assert "no job waits or runs" in capsys.readouterr().out


@pytest.mark.slow
def test_the_preemption_signal_requeues(run: Run) -> None:
    """A job that is hit drops its block, and the next attempt makes it to the same bits."""
    from submitit.local.local import LocalExecutor

    long = ["--metrics", "pv", "--draws", "600"]  # seconds of work
    assert main([*words(run, *long, "--name", "whole"), "--executor", "debug"]) == 0
    hit = _entered(run, "hit", metrics=("pv",), draws=600)
    job = MeasureMetrics("measure-0", str(hit.path), [0, 1, 2])
    executor = LocalExecutor(hit.logs)
    executor.update_parameters(timeout_min=60)
    handle = executor.submit(job)
    try:
        progress = hit.progress("measure-0")
        assert wait_for(hit.evaluation.part(0).exists), "the job does not start"
        # Into the second block: while modules are imported, what a handler raises may get lost.
        os.kill(files.read_json(progress)["pid"], signal.SIGUSR2)
        handle.result()
    finally:
        handle._process.wait()
    assert files.read_json(progress)["attempt"] == 2
    assert files.read_json(progress)["ended"] == "done"
    assert parts(hit.path) == parts(directory(run, "whole"))


def test_jobs_travel_as_small_pickles_and_say_why_they_fail(run: Run) -> None:
    jobs = _entered(run, "metrics")
    assert len(pickle.dumps(MeasureMetrics("measure-0", str(jobs.path), range(100)))) < 2000
    (run.path / "result.json").unlink()
    with pytest.raises(InputError, match="is not finished"):
        MeasureMetrics("measure-0", str(jobs.path), [0])()
    assert files.read_json(jobs.progress("measure-0"))["ended"].startswith("failed: InputError")


def test_a_part_that_somebody_else_has_made_meanwhile_is_not_made_again(run: Run) -> None:
    """`gencomp evaluate` and jobs may work on one evaluation at a time."""
    jobs, other = _entered(run, "metrics"), _entered(run, "other")
    MeasureMetrics("measure-0", str(other.path), [0, 1, 2])()
    made: list[int] = []

    class WithCompany(MeasureMetrics):
        def open_maker(self, directory: Path) -> MakePart:
            def make(block: int, advanced: Callable[[int], None]) -> None:
                made.append(block)
                for number in (block, block + 1):
                    jobs.evaluation.part(number).parent.mkdir(exist_ok=True)
                    shutil.copy(other.evaluation.part(number), jobs.evaluation.part(number))

            return make

    WithCompany("measure-0", str(jobs.path), [0, 1])()
    assert made == [0] and jobs.missing() == [2]
    assert files.read_json(jobs.progress("measure-0"))["done"] == 8


def test_each_kind_of_evaluation_is_told_apart(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = _entered(run, "ais")
    assert isinstance(open_jobs(jobs.path), MetricJobs)
    assert not ledger.read(jobs)
    assert main(["slurm", "ais", str(run.path), "--images", "2"]) == 2
    assert "is not empty and is no evaluation" in capsys.readouterr().err
    assert main(["slurm", "status", str(tmp_path)]) == 2
    assert "is not an evaluation directory" in capsys.readouterr().err


def _entered(run: Run, name: str, **chosen: Any) -> MetricJobs:
    from cluster.evaluations.metrics import plan
    from tests.cluster.evaluations.test_metrics import SMALL

    sizes = {"images": 12, "block": 4, "batch_size": 2}
    wanted = plan.make(run, **{**SMALL, **sizes, **chosen})
    return MetricJobs(plan.Evaluation.find(run, name, wanted)).enter()
