"""More jobs than Slurm takes in one array, and submissions of which a part is refused."""

from __future__ import annotations

import re
import subprocess

import pytest

from cluster.runs import Run
from gencomp.cli import main
from slurm.jobs import ledger, queue
from slurm.kinds.curve import CurveJobs
from tests.slurm.conftest import options

pytestmark = pytest.mark.slurm

# 4 blocks of measured images and 40 of simulated ones, which are an array each.
MANY = {"bdmc_images": 20, "bdmc_betas": "0.05", "executor": "slurm", "jobs": 40, "time": 1}


def words(run: Run) -> list[str]:
    return ["slurm", "ais", str(run.path), *options(**MANY)]


def waiting() -> list[str]:
    found = subprocess.run(["squeue", "-h", "-o", "%i %T"], capture_output=True, text=True)
    return [line for line in found.stdout.splitlines() if "COMPLETING" not in line]


def test_arrays_are_cut_to_what_slurm_takes(
    run: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert queue.longest_array() == 32
    assert main(words(run)) == 0
    out = capsys.readouterr().out
    assert "Slurm takes 32 jobs in one array here, not --jobs 40" in out
    assert len(re.findall(r"submitted bdmc-\d+ as job", out)) == 32
    jobs = CurveJobs.open(run.path / "evaluations" / "ais")
    assert {b for job in ledger.current(jobs) for b in job.blocks} == set(range(44))
    assert main(["slurm", "cancel", str(jobs.path)]) == 0


def test_a_submission_that_is_refused_half_way_leaves_nothing(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pilot and the first array were taken already; they are cancelled and forgotten."""
    with monkeypatch.context() as patched:
        patched.setattr(queue, "longest_array", lambda: 10**6)
        assert main(words(run)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gencomp: error: sbatch refused: ") and "array" in line
    jobs = CurveJobs.open(run.path / "evaluations" / "ais")
    assert ledger.read(jobs) == () and waiting() == []
    assert main([*words(run), "--jobs", "2"]) == 0  # and the same command goes on
    assert main(["slurm", "cancel", str(jobs.path)]) == 0
