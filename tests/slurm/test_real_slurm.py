"""The same on a real Slurm; skipped where no controller answers."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable

import pytest
import torch

from cluster.runs import Run
from gencomp.cli import main
from slurm import files, ledger, plan, queue, status, submit
from slurm.options import SlurmOptions
from slurm.plan import Evaluation
from tests.slurm.conftest import Evaluate, measure, parts
from tests.slurm.test_commands import directory, words

pytestmark = pytest.mark.slurm


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, subprocess.getoutput("squeue --states=all -r")
        time.sleep(0.1)


def submitted(evaluation: Evaluation, jobs: int) -> list[ledger.Job]:
    work = submit.divide(evaluation, jobs, "slurm")
    return submit.to_slurm(evaluation, work, SlurmOptions(time="60"))


def at_work(evaluation: Evaluation, job: ledger.Job) -> bool:
    return bool((files.read_json(evaluation.progress(job.name)) or {}).get("seconds_per_step"))


def states(evaluation: Evaluation) -> list[str]:
    return [row.state for row in status.rows(evaluation)]


def test_from_submission_to_curve(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(run, "--wait", executor="auto", time="10", max_parallel=2)) == 0
    out = capsys.readouterr().out
    assert "4 of 4 blocks to measure, a pilot and 2 jobs on Slurm" in out
    assert re.search(r"submitted measure-2 as job \d+_1", out)
    assert main(["slurm", "status", str(directory(run))]) == 0
    assert re.search(r"measure-1 +\d+_0 +done +1 +22/22", capsys.readouterr().out)
    assert main(["slurm", "collect", str(directory(run)), "--require-all"]) == 0


def test_the_warning_signal_requeues_one_element_without_a_trace_in_the_result(
    tuned: Evaluate,
) -> None:
    settings = {"temperatures": 1500, "points": 50, "images": 2, "leapfrog": 1}
    whole, hit = tuned("whole", **settings), tuned("hit", **settings)
    jobs = submitted(hit, 2)
    last = jobs[-1]
    try:
        wait_for(lambda: at_work(hit, last))
        # The last element of an array bears the array's own job id.
        subprocess.run(["scancel", "-b", "-s", "USR2", str(last.id)], check=True)
        wait_for(lambda: hit.chains(1).exists())
        submit.wait_for_slurm(hit)
    finally:
        submit.cancel(hit)
    assert states(hit) == ["done", "done"]
    attempts = [files.read_json(hit.progress(job.name))["attempt"] for job in jobs]
    assert attempts == [1, 2]
    measure(whole, (0, 1))
    assert parts(whole) == parts(hit)


def test_cancelled_jobs_save_and_are_seen_to_be_over(tuned: Evaluate) -> None:
    evaluation = tuned(temperatures=20000, images=2)
    jobs = submitted(evaluation, 2)
    wait_for(lambda: at_work(evaluation, jobs[0]))
    # What is in work is not submitted twice.
    again = submit.divide(evaluation, 2, "slurm")
    assert [job.name for job in again.living] == [job.name for job in jobs]
    assert not again.jobs
    assert len(submit.cancel(evaluation)) == 2
    submit.wait_for_slurm(evaluation)
    assert states(evaluation) == ["cancelled", "cancelled"]
    assert evaluation.chains(0).exists()  # of the first job, which was at work
    assert len(submit.divide(evaluation, 2, "slurm").measures) == 2


def test_a_failing_pilot_takes_the_array_with_it(evaluate: Evaluate) -> None:
    if torch.cuda.is_available():
        pytest.skip("the pilot is to fail for want of a GPU")
    evaluation = evaluate(device="cuda")
    submitted(evaluation, 2)
    submit.wait_for_slurm(evaluation)
    pilot, *others = states(evaluation)
    assert pilot.startswith("failed (FAILED): failed: InputError: the plan asks for a GPU")
    assert others == ["cancelled", "cancelled"]


def test_a_refused_request_is_one_sentence(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(run, executor="slurm", partition="nowhere")) == 2
    err = capsys.readouterr().err
    assert "sbatch refused" in err
    assert "invalid partition" in err
    assert len(err.splitlines()) == 1
    evaluation = plan.open_evaluation(directory(run))
    assert not ledger.living(ledger.read(evaluation))
    assert not queue.look_up([])
