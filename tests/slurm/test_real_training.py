"""Runs and sweeps on a real Slurm: what dies in between leaves no trace in the result."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.logs import json_lines, process_log
from cluster.runs import Run
from gencomp.cli import main
from slurm.jobs import ledger
from slurm.kinds import open_jobs
from sweeps import results
from tests import tiny
from tests.cluster.ray_train.test_train import straight
from tests.gencomp import vae_cases
from tests.gencomp.systems.urdp.test_training import raw as urdp_recipe
from tests.processes import gone, kill
from tests.slurm.waiting import until, waiting
from tests.slurm_cluster import Cluster, faults
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slurm

Words = Callable[..., list[str]]


def raw(photos: Path, steps: int = 60) -> dict[str, Any]:
    return tiny.generator(photos, {"training.steps": steps, "training.sample_every": 1000})


@pytest.fixture
def words(photos: Path, tmp_path: Path) -> Words:
    """`gencomp slurm train` of a tiny recipe, and more words."""
    file = tiny.write(raw(photos), tmp_path / "tiny.yaml")

    def command(*more: str) -> list[str]:
        return ["slurm", "train", str(file), "--runs", str(tmp_path / "runs"), *more]

    return command


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "runs" / "tiny")


def step_of(run: Run) -> int:
    return max((row["step"] for row in json_lines.read(run.metrics)), default=0)


def starts(run: Run) -> list[dict[str, Any]]:
    """The starts of rank 0, over all attempts."""
    rows = json_lines.read(process_log.of_rank(run.path, 0))
    return [row for row in rows if row.get("event") == "start"]


def log_of(subject: Path) -> str:
    """The error log of the newest job."""
    found = open_jobs(subject)
    job = ledger.read(found)[-1]
    path = job.log(found.logs)
    return path.read_text() if path.exists() else ""


def job_of(subject: Path) -> str:
    number = ledger.read(open_jobs(subject))[-1].id
    assert number is not None
    return number


def attempts(subject: Path) -> int:
    found = open_jobs(subject)
    progress = found.progress(ledger.read(found)[-1].name)
    return int(json.loads(progress.read_text())["attempt"])


@contextmanager
def frozen(run: Run, start: int, step: int) -> Iterator[None]:
    """Rank 0, at a start, stopped behind a step until the body ends, however fast it is."""

    def there() -> bool:
        if (run.path / "slurm" / "jobs.json").exists():
            assert subprocess.check_output(["squeue", "-h"]), log_of(run.path)
        return len(starts(run)) == start and step_of(run) >= step

    until(there)
    pid = starts(run)[-1]["pid"]
    os.kill(pid, signal.SIGSTOP)
    assert run.result() is None
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def preempt(nodes: int, subject: Path) -> None:
    """A more important job takes the nodes, for a moment; returns when ours has been warned."""
    before = log_of(subject).count("Caught signal SIGUSR2")
    high = ["sbatch", "-p", "high", f"-N{nodes}", "--exclusive", "--wrap", "true"]
    subprocess.run([*high, "--output=/dev/null"], check=True, stdout=subprocess.DEVNULL)
    until(lambda: log_of(subject).count("Caught signal SIGUSR2") > before)


@pytest.mark.long
@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_two_nodes_preempted(
    words: Words,
    run: Run,
    photos: Path,
    tmp_path: Path,
    slurm_cluster: Cluster,
    capsys: pytest.CaptureFixture[str],
    times: int,
) -> None:
    """The bits of an undisturbed run; then the same command finds it finished."""
    low = ["--partition", "low", "--nodes", "2", "--workers", "2", "--cpus-per-task", "1"]
    command = words(*low, "--time", "60")
    daemons = slurm_cluster.processes()
    with waiting(command, tmp_path) as process:
        for attempt, step in ((1, 5), (2, 20))[:times]:
            with frozen(run, attempt, step):
                inside = slurm_cluster.processes() - daemons
                assert main(["slurm", "status", str(run.path)]) == 0
                assert main(command) == 0
                said = capsys.readouterr().out
                assert re.search(rf"train-0 +\d+ +running +{attempt} ", said)
                assert "train-0 is there already, as job" in said
                preempt(2, run.path)
        assert process.wait(timeout=PATIENCE) == 0, (tmp_path / "waiting.out").read_text()
    assert gone(inside), [p.command() for p in inside if p.alive()]
    assert attempts(run.path) == times + 1
    # It went on from where it was, not from an earlier checkpoint.
    begun = [row["step"] for row in starts(run)]
    assert all(a < b for a, b in pairwise(begun))
    assert all(a >= b for a, b in zip(begun, (0, 5, 20), strict=False)) and begun[0] == 0
    assert {row["world"] for row in starts(run)} == {2}

    untouched = straight(tmp_path / "straight", raw(photos), 2)
    tiny.assert_identical(tiny.state(run), tiny.state(untouched))
    assert tiny.rows(run) == tiny.rows(untouched)

    assert main(command) == 0
    assert "is finished" in capsys.readouterr().out
    assert main(["slurm", "logs", str(run.path), "--follow"]) == 0
    said = capsys.readouterr().out
    assert "Caught signal SIGUSR2" in said and "rank 0: " in said


@pytest.mark.slow
def test_a_sweep_over_two_allocations(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cancelled in its first, gone on with in its second, on other nodes; no trial runs twice."""
    overrides = {"training.steps": 24, "training.checkpoint_every": 2, "evaluation.every": 8}
    base = tiny.write(tiny.generator(photos, overrides), tmp_path / "base.yaml")
    space = {"loss.mmd_weight": {"grid": [1, 3, 10]}}
    sweep = {"base": str(base), "space": space, "objective": {"minimise": "mse"}, "concurrent": 1}
    file = tmp_path / "weights.yaml"
    file.write_text(yaml.safe_dump(sweep))
    directory = tmp_path / "runs" / "weights"
    command = ["slurm", "sweep", str(file), "--runs", str(tmp_path / "runs")]

    def trials() -> dict[str, list[int]]:
        """Steps from which each trial was started."""
        found = sorted((directory / "trials").glob("*"))
        return {path.name: [row["step"] for row in starts(Run(path))] for path in found}

    def finished() -> set[str]:
        return {path.parent.name for path in directory.glob("trials/*/result.json")}

    assert main(command) == 0
    until(lambda: finished() and sum(map(bool, trials().values())) == 2)
    assert main(["slurm", "cancel", str(directory)]) == 0
    until(lambda: not subprocess.check_output(["squeue", "-h"]))
    first, before = finished(), trials()
    assert main(["slurm", "status", str(directory)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"sweep-0 +\d+ +stopped +1 +\d/3", said)
    assert f"{len(first)} of 3 trials have ended" in said

    assert main([*command, "--wait"]) == 0, log_of(directory)
    assert len(finished()) == 3
    after = trials()
    assert {name: after[name] for name in first} == {name: before[name] for name in first}
    assert sum(len(begun) - len(before.get(name, [])) for name, begun in after.items()) <= 3
    assert main(command) == 0
    assert "is finished" in capsys.readouterr().out


@pytest.mark.slow
def test_a_chain_of_sweeps_over_two_allocations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cancelled in the sweep that the last one starts from; the same command ends both of them."""
    blobs = vae_cases.blobs(tmp_path, side=28)
    changes = {"training.steps": 40, "evaluation.every": 20}
    weight = "loss.perception_weight"

    def written(name: str, stage: str, **more: Any) -> Path:
        recipe = urdp_recipe(stage, blobs, Path("nowhere"), **changes)
        base = tiny.write(recipe, tmp_path / f"{stage}.yaml")
        space = {weight: {"grid": [0.0, 0.01]}}
        sweep = {"base": str(base), "space": space, "objective": {"minimise": "mse_unit"}, **more}
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump({**sweep, "concurrent": 1}))
        return file

    encoders = written("encoders", "end_to_end")
    parent = {"sweep": str(encoders), "point": {weight: 0.01}}
    decoders = written("decoders", "universal", parents={"encoder": parent})
    runs = tmp_path / "runs"
    command = ["slurm", "sweep", str(decoders), "--runs", str(runs), "--evaluation.limit", "16"]

    def trials(name: str) -> dict[str, list[int]]:
        """Steps from which each trial of a sweep was started."""
        found = sorted((runs / name / "trials").glob("*"))
        return {path.name: [row["step"] for row in starts(Run(path))] for path in found}

    def finished(name: str) -> set[str]:
        return {path.parent.name for path in (runs / name).glob("trials/*/result.json")}

    assert main(command) == 0
    until(lambda: finished("encoders") and sum(map(bool, trials("encoders").values())) == 2)
    (second,) = trials("encoders").keys() - finished("encoders")
    with frozen(Run(runs / "encoders" / "trials" / second), 1, 2):
        assert main(["slurm", "cancel", str(runs / "decoders")]) == 0
    until(lambda: not subprocess.check_output(["squeue", "-h"]))
    first, before = finished("encoders"), trials("encoders")
    assert len(first) == 1 and not trials("decoders")
    assert main(["slurm", "status", str(runs / "decoders")]) == 0
    assert re.search(r"sweep-0 +\d+ +stopped +1 ", capsys.readouterr().out)

    assert main([*command, "--wait"]) == 0, log_of(runs / "decoders")
    assert (len(finished("encoders")), len(finished("decoders"))) == (2, 2)
    after = trials("encoders")
    assert {name: after[name] for name in first} == {name: before[name] for name in first}
    assert after[second][0] == 0 and after[second][1] >= 2  # it went on from its checkpoint
    rows = results.read_results(runs / "encoders").rows
    (chosen,) = [row["trial"] for row in rows if row[weight] == 0.01]
    for name in finished("decoders"):
        recipe = Run(runs / "decoders" / "trials" / name).recipe()
        assert Path(recipe.parent_runs()["encoder"]).name == chosen
        assert recipe.evaluation.limit == 16
    assert main(command) == 0
    assert "is finished" in capsys.readouterr().out


def test_a_driver_that_refuses_fails_the_job_with_its_sentence(
    words: Words, run: Run, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words()) == 0
    subprocess.run(["scontrol", "hold", job_of(run.path)], check=False)
    (run.path / "identity.json").write_text(json.dumps({"system": "another"}))
    subprocess.run(["scontrol", "release", job_of(run.path)], check=False)
    until(lambda: not subprocess.check_output(["squeue", "-h"]))
    assert main(["slurm", "status", str(run.path)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"failed \(FAILED\): failed: InputError: run .* exists with another", said)
    assert attempts(run.path) == 1


@pytest.mark.slow
def test_ray_and_driver_killed_a_node_set_down_and_the_job_cancelled(
    words: Words,
    run: Run,
    photos: Path,
    tmp_path: Path,
    slurm_cluster: Cluster,
) -> None:
    """Whatever dies, the run ends with the same bits.

    All is started anew after Ray or the driver; Slurm requeues without a warning; the cancelled job
    saves and ends; then one node does."""
    daemons = slurm_cluster.processes()
    assert main(words("--nodes", "2", "--workers", "2")) == 0
    with frozen(run, 1, 5):
        (node,) = [
            p for p in slurm_cluster.of_node("n2") if "slurm.sessions.ray_node" in p.command()
        ]
        kill(node)
        until(lambda: "Ray has ended on n2" in log_of(run.path))
    with frozen(run, 2, 8):
        (driver,) = [p for p in slurm_cluster.processes() if "gencomp.cli train" in p.command()]
        kill(driver)
        until(lambda: "was killed by signal 9 on " in log_of(run.path))
    with frozen(run, 3, 10):
        assert attempts(run.path) == 1
        faults.set_down(slurm_cluster, "n2")
        until(lambda: b"RUNNING" not in subprocess.check_output(["squeue", "-ho", "%T"]))
    faults.resume(slurm_cluster, "n2")
    with frozen(run, 4, 20):
        inside = slurm_cluster.processes() - daemons
        assert main(["slurm", "cancel", str(run.path)]) == 0
    until(lambda: not subprocess.check_output(["squeue", "-h"]))
    assert gone(inside), [p.command() for p in inside if p.alive()]
    assert attempts(run.path) == 2
    assert step_of(run) < 60

    assert main(words("--workers", "2", "--wait")) == 0, log_of(run.path)
    assert starts(run)[-1]["step"] >= 20
    untouched = straight(tmp_path / "straight", raw(photos), 2)
    tiny.assert_identical(tiny.state(run), tiny.state(untouched))


@pytest.mark.slow
def test_one_node_at_its_time_limit(words: Words, run: Run, photos: Path, tmp_path: Path) -> None:
    """The warning comes up to a minute early; rank 0 waits for it."""
    with waiting(words("--time", "2", "--sbatch", "signal=B:USR2@30"), tmp_path) as process:
        with frozen(run, 1, 5):
            until(lambda: "Caught signal SIGUSR2" in log_of(run.path))
        assert process.wait(timeout=PATIENCE) == 0
    assert attempts(run.path) >= 2
    untouched = straight(tmp_path / "straight", raw(photos), 1)
    tiny.assert_identical(tiny.state(run), tiny.state(untouched))


@pytest.mark.slow
def test_a_time_limit_that_is_shorter_than_the_start(
    words: Words, run: Run, slurm_cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """The driver of each attempt is stopped before its first step, as if Python started slowly."""

    def hampered() -> bool:
        for process in slurm_cluster.processes():
            if "gencomp.cli train" in process.command():
                os.kill(process.pid, signal.SIGSTOP)
        return not subprocess.check_output(["squeue", "-h"])

    assert main(words("--time", "1", "--sbatch", "signal=B:USR2@20")) == 0
    until(hampered)
    assert attempts(run.path) == 3
    said = "3 attempts in a row have reached their time limit without a step; --time must hold"
    capsys.readouterr()
    assert main(["slurm", "status", str(run.path)]) == 0
    assert f"failed (FAILED): failed: TimeLimitTooShort: {said}" in capsys.readouterr().out
    assert main(["status", str(run.path)]) == 0
    assert f"failed: {said}" in capsys.readouterr().out
