"""The commands, end to end, on this machine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch

from cluster.evaluations.curve import plan
from cluster.runs import Run
from gencomp.cli import main
from slurm.jobs import ledger, status
from slurm.kinds.curve import CurveJobs
from tests import tiny
from tests.conftest import ROOT
from tests.curves import Evaluate
from tests.slurm.conftest import options
from tests.waiting import PATIENCE, wait_for

LONG = {"temperatures": 20000, "images": 2}


def words(run: Run, *more: str, **changes: Any) -> list[str]:
    """`gencomp slurm ais` with the settings of the other tests."""
    return ["slurm", "ais", str(run.path), *options(**changes), *more]


def directory(run: Run) -> Path:
    return run.path / "evaluations" / "ais"


def test_from_submission_to_curve(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(run, executor="local")) == 0
    out = capsys.readouterr().out
    assert "4 of 4 blocks to measure, a pilot and 2 jobs on this machine" in out
    assert "all 4 blocks are finished" in out

    assert main(["slurm", "status", str(directory(run))]) == 0
    out = capsys.readouterr().out
    assert re.search(r"pilot-0 +\d+ +done +1 +30/30", out)
    assert re.search(r"measure-2 +\d+ +done +1 +22/22 +[1-4]\.\d .*_0_log.err", out)
    assert re.search(r"collect-3 +\d+ +done +1 +1/1", out)
    assert "4 of 4 blocks are finished" in out

    # The last job has merged the others' parts; the command shows the same.
    curve = (directory(run) / "curve.json").read_bytes()
    assert len(json.loads(curve)["points"]) == 5
    assert main(["slurm", "collect", str(directory(run)), "--require-all"]) == 0
    assert "4 images, complete" in capsys.readouterr().out
    assert (directory(run) / "curve.json").read_bytes() == curve

    # The same command finds everything there; only a lost part is measured again, to the same bits.
    part = directory(run) / "parts" / "block-00002.parquet"
    bits = part.read_bytes()
    assert main(words(run, executor="local")) == 0
    assert "all 4 blocks are finished" in capsys.readouterr().out
    part.unlink()
    assert main(words(run, executor="debug", jobs=4)) == 0
    assert "1 of 4 blocks to measure, 1 jobs" in capsys.readouterr().out
    assert part.read_bytes() == bits
    names = [job.name for job in ledger.current(CurveJobs.open(directory(run)))]
    assert names == ["pilot-0", "measure-1", "measure-2", "measure-4", "collect-5"]

    assert main(words(run, executor="local", seed=9)) == 2
    assert "seed was 7, would be 9" in capsys.readouterr().err


def test_all_in_this_process_with_a_certificate(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"images": 1, "bdmc_images": 2, "bdmc_betas": "0.01 0.1"}
    assert main(words(run, executor="debug", **changes)) == 0
    assert "9 of 9 blocks to measure, a pilot and 3 jobs inside" in capsys.readouterr().out
    assert main(["slurm", "collect", str(directory(run))]) == 0
    out = capsys.readouterr().out
    assert "1 images, complete" in out
    assert re.search(r"beta +gap \[nats\] +± s.e. +95 % +worst image", out)
    assert "BDMC gap, on simulated images" in out
    assert re.search(r"^ *0\.1 +-?\d+\.\d+ .* 2$", out, re.MULTILINE)


def test_a_failing_pilot_ends_the_command(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("the pilot is to fail for want of a GPU")
    assert main(words(run, executor="local", device="cuda")) == 1
    err = capsys.readouterr().err
    assert "missing are 4 of 4 blocks (4 images): blocks 0, 1, 2, 3" in err
    assert re.search(
        r"pilot-0: failed: InputError: the plan asks for a GPU.*; log .*_0_log.err", err
    )
    assert "3 jobs behind them were not started" in err


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"time": "0"}, "--time 0 would be a job without a time limit"),
        ({"time": "soon"}, "--time 'soon' must be minutes"),
        ({"jobs": 0}, "--jobs 0 must be at least 1"),
        ({"max_parallel": 0}, "--max-parallel 0 must be at least 1"),
        ({"split": "train2"}, "has no split 'train2'"),
    ],
)
def test_bad_input_is_one_sentence(
    run: Run, changes: dict[str, Any], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(run, "--dry-run", **changes)) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert not directory(run).exists()


def test_a_dry_run_shows_scripts_and_writes_nothing(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tiny.tree(run.path)
    asked = ["--dry-run", "--partition", "gpu", "--time", "01:00:00"]
    asked += ["--setup", "module load x", "--setup", "module load y"]
    assert main(words(run, *asked, bdmc_images=2, bdmc_betas="0.1")) == 0
    out = capsys.readouterr().out
    assert out.count("#!/bin/bash") == 4
    assert out.count("#SBATCH --partition=gpu") == 4
    assert out.count("module load x\nmodule load y\n") == 4
    pilot, measure, bdmc, collect = out.split("#!/bin/bash")[1:]
    assert "dependency" not in pilot
    for array in (measure, bdmc):
        assert "#SBATCH --array=0-1%2" in array
        assert "#SBATCH --dependency=afterok:PILOT-ID" in array
    assert "#SBATCH --dependency=afterany:MEASURE-ID:BDMC-ID" in collect
    assert f"# Pilot(name='pilot-0', directory='{directory(run)}', save_seconds=30.0)" in pilot
    assert "# Measure(name='measure-2'" in measure
    assert "blocks=[1, 3])" in measure
    assert "# Measure(name='bdmc-3'" in bdmc
    assert "blocks=[4, 6])" in bdmc
    assert f"# Collect(name='collect-5', directory='{directory(run)}')" in collect
    assert tiny.tree(run.path) == before


def test_a_stop_saves_and_leaves_no_process(
    run: Run, tuned: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = tuned(**LONG)
    long = words(run, executor="local", max_parallel=2, **LONG)
    command = [sys.executable, "-m", "gencomp.cli", *long]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert wait_for(partial(_two_jobs_run, evaluation)), "the jobs do not start"
        pids = [progress["pid"] for progress in _progress(evaluation)]

        # A second command keeps off.
        assert main(long) == 2
        assert "is being worked on by process" in capsys.readouterr().err
        rows = status.rows(CurveJobs(evaluation))
        assert [row.state for row in rows] == ["running", "running", "waiting (for its turn)"]

        # As a terminal does it: Ctrl-C reaches the whole group.
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert "the jobs have saved what they had" in output
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    for progress, number in zip(_progress(evaluation), (0, 1), strict=True):
        with safetensors.safe_open(evaluation.chains(number), "pt") as file:
            assert int(file.get_tensor("temperature")) >= progress["done"] > 0
    states = [row.state for row in status.rows(CurveJobs(evaluation))]
    assert states == ["stopped", "stopped", "not submitted"]


def test_cancel_from_elsewhere_stops_jobs_and_submitter(
    run: Run, tuned: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = tuned(**LONG)
    long = words(run, executor="local", max_parallel=2, **LONG)
    process = subprocess.Popen(
        [sys.executable, "-m", "gencomp.cli", *long],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    try:
        assert wait_for(partial(_two_jobs_run, evaluation)), "the jobs do not start"
        assert main(["slurm", "cancel", str(evaluation.path)]) == 0
        assert process.wait(timeout=PATIENCE) == 130
    finally:
        process.kill()
    assert capsys.readouterr().out.count("cancelled measure-") == 2
    assert not ledger.living(ledger.read(CurveJobs(evaluation)))
    assert main(["slurm", "cancel", str(evaluation.path)]) == 0
    assert "no job waits or runs" in capsys.readouterr().out


def _progress(evaluation: plan.Evaluation) -> list[dict[str, Any]]:
    files = sorted((evaluation.path / "progress").glob("measure-*.json"))
    return [json.loads(file.read_text()) for file in files]


def _two_jobs_run(evaluation: plan.Evaluation) -> bool:
    return sum(bool(p.get("seconds_per_step")) for p in _progress(evaluation)) >= 2
