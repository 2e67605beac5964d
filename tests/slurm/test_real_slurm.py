"""Evaluations on a real Slurm, through the command line: what dies in between leaves no trace.

The cluster has no accounting storage, as many sites: what is known comes from the queue.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from cluster.runs import Run
from gencomp.cli import main
from tests.slurm.waiting import until, waiting
from tests.slurm_cluster import Cluster, faults
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slurm

# Eight blocks. They may be short: a job that is to be hit is stopped in the middle of its work.
OPTIONS: dict[str, Any] = {
    "images": 8,
    "block": 1,
    "chains": 4,
    "temperatures": 150,
    "points": 5,
    "beta_max": 0.1,
    "leapfrog": 1,
    "pilot_images": 2,
    "pilot_temperatures": 20,
    "bdmc_images": 0,
}


class Running(NamedTuple):
    """A job that has told of its progress."""

    name: str
    id: str
    node: str
    pid: int
    told: float  # when
    done: int


def ais(run: Run, *more: str, **changes: Any) -> list[str]:
    """`gencomp slurm ais` with options of this module."""
    options = {**OPTIONS, **changes}
    return [
        *("slurm", "ais", str(run.path)),
        *(word for k, v in options.items() for word in (f"--{k.replace('_', '-')}", str(v))),
        *more,
    ]


def directory(run: Run) -> Path:
    return run.path / "evaluations" / "ais"


def jobs(run: Run) -> dict[str, str]:
    """Name and Slurm's number of what was submitted, oldest first."""
    path = directory(run) / "jobs.json"
    return {job["name"]: job["id"] for job in json.loads(path.read_text())} if path.exists() else {}


def progress(run: Run, name: str) -> dict[str, Any]:
    path = directory(run) / "progress" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def printed(*command: str) -> str:
    return subprocess.check_output(command, text=True)


def send(job: Running, number: int) -> None:
    """Send a signal to a job."""
    os.kill(job.pid, number)


def running(run: Run, printed: Callable[..., str] = printed) -> list[Running]:
    """The jobs that run, as the queue has them that `printed` asks."""
    lines = printed("squeue", "-h", "-r", "-t", "R", "-o", "%i %N")
    nodes = dict(line.split() for line in lines.splitlines())
    told = {name: progress(run, name) for name in jobs(run)}
    return [
        Running(name, number, nodes[number], at["pid"], at["updated"], at["done"])
        for name, number in jobs(run).items()
        if number in nodes and (at := told[name]) and not at["ended"]
    ]


def frozen(
    run: Run,
    count: int,
    look: Callable[[Run], list[Running]] = running,
    send: Callable[[Running, int], None] = send,
) -> list[Running]:
    """A number of jobs, stopped in the middle of their chains, however fast the machine is.

    Progress is told once a second at most. A job that is stopped for longer whenever it has told
    something tells of its very next step.
    """
    stopped: dict[str, tuple[Running, float]] = {}

    def enough() -> bool:
        for job in look(run):
            before, since = stopped.get(job.name, (None, 0.0))
            if job != before:
                send(job, signal.SIGSTOP)
                stopped[job.name] = job, time.monotonic()
            elif not job.done and time.monotonic() - since > 1.2:
                send(job, signal.SIGCONT)
        return len(met()) >= count

    def met() -> list[Running]:
        return [job for job, _ in stopped.values() if job.done]

    until(enough)
    return met()


def thaw(*jobs: Running) -> None:
    for job in jobs:
        send(job, signal.SIGCONT)


def attempts(run: Run) -> list[int]:
    return [progress(run, name)["attempt"] for name in jobs(run) if name.startswith("measure")]


def result(run: Run) -> dict[str, bytes]:
    """What `collect` makes of all blocks."""
    assert main(["slurm", "collect", str(directory(run)), "--require-all"]) == 0
    return {name: (directory(run) / name).read_bytes() for name in ("curve.parquet", "curve.json")}


@pytest.fixture(scope="module")
def undisturbed(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same evaluation on this machine, with nothing in its way."""
    run = Run(Path(shutil.copytree(finished.path, tmp_path_factory.mktemp("undisturbed") / "g")))
    assert main(ais(run, executor="debug")) == 0
    return run


@pytest.fixture
def tuned_run(run: Run, undisturbed: Run) -> Run:
    """A run whose evaluation has its pilot behind it."""
    directory(run).mkdir(parents=True)
    for name in ("plan.json", "tuning.npz"):
        shutil.copy(directory(undisturbed) / name, directory(run))
    return run


@pytest.fixture
def half_done_run(tuned_run: Run, undisturbed: Run) -> Run:
    """A run whose evaluation lacks its first two blocks."""
    parts = directory(tuned_run) / "parts"
    shutil.copytree(directory(undisturbed) / "parts", parts)
    for part in sorted(parts.iterdir())[:2]:
        part.unlink()
    return tuned_run


def test_from_submission_to_curve(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dependent arrays, a GPU for each job, and what the commands say about them."""
    begun = tmp_path / "begun"
    # The first job is warned while its shell is still busy.
    setup = f"echo devices=$CUDA_VISIBLE_DEVICES; [ -e {begun} ] || {{ touch {begun}; sleep 2; }}"
    small = {"images": 3, "temperatures": 12, "bdmc_images": 2, "bdmc_betas": 0.1}
    asked = ["--gres", "gpu:1", "--setup", setup, "--time", "10"]
    command = ais(run, *asked, executor="auto", jobs=2, max_parallel=2, **small)
    assert main([*command, "--dry-run"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert not directory(run).exists()

    with waiting(command, tmp_path) as process:
        until(begun.exists)
        subprocess.run(["scancel", "-b", "-s", "USR2", jobs(run)["pilot-0"]], check=True)
        assert process.wait(timeout=PATIENCE) == 0, (tmp_path / "waiting.out").read_text()
    out = (tmp_path / "waiting.out").read_text()
    assert re.search(r"a pilot and \d jobs on Slurm", out)
    assert re.search(r"submitted measure-2 as job \d+_1", out)
    assert main(["slurm", "status", str(directory(run))]) == 0
    assert re.search(r"measure-1 +\d+_0 +done +1 +(\d+)/\1 ", capsys.readouterr().out)
    result(run)

    logs = directory(run) / "logs"
    for log in logs.glob("*_log.out"):
        assert re.search(r"^devices=[01]$", log.read_text(), re.MULTILINE), log
    for script in logs.glob("*_submission.sh"):
        lines = script.read_text().splitlines()
        assert not [x for x in lines if x not in shown and "--dependency=" not in x], script


@pytest.mark.long
def test_an_array_of_8_with_one_job_requeued_one_cancelled_and_one_node_lost(
    tuned_run: Run, undisturbed: Run, slurm_cluster: Cluster, tmp_path: Path
) -> None:
    run = tuned_run
    with waiting(ais(run, jobs=8), tmp_path) as command:
        met = frozen(run, 4)
        lost = met[0].node
        requeued, cancelled = [job for job in met if job.node != lost]
        subprocess.run(["scontrol", "requeue", requeued.id], check=True)
        subprocess.run(["scancel", cancelled.id], check=True)
        faults.set_down(slurm_cluster, lost)
        until(lambda: not [job for job in running(run) if job.node == lost])
        faults.resume(slurm_cluster, lost)
        with faults.controller_outage(slurm_cluster):
            time.sleep(3)  # the outage itself: commands and jobs meet it
        # The cancelled job is missing, and nothing waits for it for ever.
        assert command.wait(timeout=PATIENCE) == 1
    said = (tmp_path / "waiting.out").read_text()
    assert "missing are 1 of 8 blocks (1 images)" in said
    assert f"{cancelled.name}: cancelled" in said
    hit = {job.name for job in met} - {cancelled.name}
    told = {name: progress(run, name)["attempt"] for name in jobs(run)}
    assert {name for name, attempt in told.items() if attempt == 2} == hit

    assert main(ais(run, "--wait", jobs=8)) == 0
    assert result(run) == result(undisturbed)


def test_a_preempted_job_saves_and_goes_on_alone(
    half_done_run: Run, undisturbed: Run, tmp_path: Path
) -> None:
    """The last element of an array bears the array's own number: only it must start again."""
    run = half_done_run
    asked = ["--partition", "low", "--sbatch", "exclusive", "--time", "60"]
    with waiting(ais(run, *asked, jobs=2), tmp_path) as command:
        # In the order of the array, whichever began first.
        other, last = sorted(frozen(run, 2), key=lambda job: list(jobs(run)).index(job.name))
        high = ["sbatch", "-p", "high", "-w", last.node, "--exclusive", "--wrap", "sleep 1"]
        subprocess.run([*high, "--output=/dev/null"], check=True, stdout=subprocess.DEVNULL)
        thaw(other)  # the warning wakes the one that it is for
        assert command.wait(timeout=PATIENCE) == 0
    assert attempts(run) == [1, 2]
    assert result(run) == result(undisturbed)


def test_status_and_cancel(tuned_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run = tuned_run
    assert main(ais(run, jobs=2)) == 0
    frozen(run, 2)
    assert main(["slurm", "status", str(directory(run))]) == 0
    assert len(re.findall(r"measure-\d +\d+_\d +running +1 ", capsys.readouterr().out)) == 2
    # What is in work is not submitted twice.
    assert main(ais(run, jobs=2)) == 0
    assert capsys.readouterr().out.count("of an earlier command still lives") >= 2
    names = list(jobs(run))

    assert main(["slurm", "cancel", str(directory(run))]) == 0
    assert "cancelled measure-0 (slurm" in capsys.readouterr().out
    until(lambda: not subprocess.check_output(["squeue", "-h"]))
    assert main(["slurm", "status", str(directory(run))]) == 0
    assert len(re.findall(r"measure-\d +\d+_\d +cancelled ", capsys.readouterr().out)) == 2
    assert len(list((directory(run) / "chains").iterdir())) == 2
    assert list(jobs(run)) == names
    assert main(ais(run, "--dry-run", jobs=2)) == 0
    assert "#SBATCH --array=0-1" in capsys.readouterr().out
    assert not subprocess.check_output(["squeue", "-h"])


def test_a_failing_pilot_takes_the_others_with_it(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("the pilot is to fail for want of a GPU")
    assert main(ais(run, "--wait", device="cuda", jobs=2)) == 1
    err = capsys.readouterr().err
    assert "missing are 8 of 8 blocks" in err
    assert re.search(
        r"pilot-0: failed \(FAILED\): failed: InputError: the plan asks for a GPU.*; log \S+_0_log",
        err,
    )
    assert len(re.findall(r"measure-\d: cancelled", err)) == 2


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (["--partition", "nowhere"], "invalid partition"),
        (["--gres", "gpu:5"], "Requested node configuration is not available"),
    ],
)
def test_a_refused_request_is_one_sentence(
    run: Run, asked: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(ais(run, *asked, executor="slurm")) == 2
    err = capsys.readouterr().err
    assert "sbatch refused" in err
    assert reason in err
    assert len(err.splitlines()) == 1
    assert not jobs(run)


@pytest.mark.slow
def test_the_time_limit_is_no_end(half_done_run: Run, undisturbed: Run, tmp_path: Path) -> None:
    """Slurm looks at limits every half minute; the warning comes up to a minute early."""
    run = half_done_run
    with waiting(ais(run, "--time", "1", jobs=1), tmp_path) as command:
        # It would be done long before the warning, which wakes it.
        frozen(run, 1)
        assert command.wait(timeout=PATIENCE) == 0
    assert attempts(run)[0] >= 2
    assert result(run) == result(undisturbed)


@pytest.mark.slow
def test_a_crashed_node_is_missed_and_its_job_runs_elsewhere(
    half_done_run: Run, undisturbed: Run, slurm_cluster: Cluster, tmp_path: Path
) -> None:
    run = half_done_run
    with waiting(ais(run, "--sbatch", "exclusive", jobs=2), tmp_path) as command:
        hit, other = frozen(run, 2)
        faults.crash_node(slurm_cluster, hit.node)
        thaw(other)
        assert command.wait(timeout=PATIENCE) == 0
    assert attempts(run)[int(hit.id.rpartition("_")[2])] == 2
    assert result(run) == result(undisturbed)


@pytest.mark.slow
def test_a_controller_that_is_long_away_is_waited_for(
    half_done_run: Run, undisturbed: Run, slurm_cluster: Cluster, tmp_path: Path
) -> None:
    """Longer than Slurm's own commands have patience."""
    run = half_done_run
    with waiting(ais(run, jobs=2), tmp_path) as command:
        met = frozen(run, 2)
        with faults.controller_outage(slurm_cluster):
            time.sleep(20)  # the outage itself
        thaw(*met)
        assert command.wait(timeout=PATIENCE) == 0
    assert attempts(run) == [1, 1]
    assert result(run) == result(undisturbed)
