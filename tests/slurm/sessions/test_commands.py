"""`gencomp slurm train` and `slurm sweep` up to the submission; no Slurm."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cluster.files import locked
from gencomp.cli import main
from gencomp.cli.sweep import Options
from gencomp.errors import InputError
from slurm.jobs.job import Job
from slurm.sessions import session
from slurm.sessions.drive import Drive
from slurm.sessions.session import Order
from slurm.sessions.session_jobs import SessionJobs
from sweeps import sweep_file
from tests import tiny


@pytest.fixture
def recipe(photos: Path, tmp_path: Path) -> Path:
    return tiny.write(tiny.generator(photos), tmp_path / "tiny.yaml")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def test_a_dry_run_shows_the_script_and_writes_nothing(
    recipe: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "site.yaml").write_text("partition: gpu\nnodes: 2\ntime: 4:00:00\n")
    words = ["slurm", "train", str(recipe), "--runs", str(runs), "--workers", "4", "--dry-run"]
    words += ["--profile", str(tmp_path / "site.yaml"), "--time", "20", "--loss.mmd_weight", "3"]
    assert main(words) == 0
    script = capsys.readouterr().out
    for line in (
        "--partition=gpu",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--cpus-per-task=2",  # as many as the workers need
        "--time=20",
        "--signal=B:USR2@120",
        "--requeue",
        "--job-name=gencomp-train-tiny",
    ):
        assert f"#SBATCH {line}\n" in script
    assert "trap '' USR2\n" in script and "OMP_NUM_THREADS" not in script
    assert f"# Drive(name='train-0', directory='{runs / 'tiny' / 'slurm'}')" in script
    assert not runs.exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--loss.mmd_wieght", "3"], "unknown key loss.mmd_wieght; did you mean loss.mmd_weight?"),
        (["--data.shards", "nowhere", "--dry-run"], "nowhere"),
        (["--workers", "9", "--dry-run"], "9"),  # of a batch of 8
        (
            ["--nodes", "2", "--container", "apptainer:a.sif", "--dry-run"],
            "--container is for jobs of one node, but --nodes is 2",
        ),
        (["--workers", "8", "--nodes", "2", "--cpus-per-task", "2"], "8 CPUs, but --nodes 2 of"),
        (["--workers", "4..8", "--cpus-per-task", "3"], "4 workers need 4 CPUs"),
        (["--stall-seconds", "0"], "--stall-seconds 0 must be more than 0"),
        (["--copy-to", "ftp://host/x"], "copies cannot go to ftp://host/x"),
        (["--workers", "few"], "--workers INT or INT..INT"),
        (["--nodes", "0"], "--nodes 0 must be at least 1"),
        (["--cpus-per-task", "0"], "--cpus-per-task 0 must be at least 1"),
        (["--time", "soon"], "--time 'soon' must be minutes"),
        (["--sbatch", "=1", "--dry-run"], "must be KEY=VALUE"),
        ([], "or use `gencomp train` on this machine"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_submitted(
    words: list[str],
    sentence: str,
    recipe: Path,
    runs: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["slurm", "train", str(recipe), "--runs", str(runs), *words]) == 2
    said = capsys.readouterr().err
    assert sentence in said and len(said.splitlines()) == 1
    assert not runs.exists()


def test_a_sweep_is_checked_too(
    recipe: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = {"base": str(recipe), "space": {"loss.mmd_weight": {"grid": [1, 3]}}, "workers": 2}
    sweep["objective"] = {"minimise": "mse"}
    file = tmp_path / "weights.yaml"
    file.write_text(yaml.safe_dump(sweep))
    words = ["slurm", "sweep", str(file), "--runs", str(runs)]
    assert main([*words, "--dry-run"]) == 0
    script = capsys.readouterr().out
    assert "#SBATCH --job-name=gencomp-sweep-weights\n" in script
    assert "#SBATCH --cpus-per-task=2\n" in script
    assert main([*words, "--dry-run", "--concurrent", "3", "--nodes", "2"]) == 0
    assert "#SBATCH --cpus-per-task=3\n" in capsys.readouterr().out
    assert main([*words, "--cpus-per-task", "1"]) == 2
    assert "2 workers of one trial need 2 CPUs" in capsys.readouterr().err
    assert main([*words, "--loss.mmd_wieght", "3"]) == 2
    assert "mmd_wieght" in capsys.readouterr().err
    assert main(words) == 2
    assert "or use `gencomp sweep` on this machine" in capsys.readouterr().err
    assert not runs.exists()


def test_several_sweeps_are_one_job(
    recipe: Path,
    runs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fake_command: Callable[[str, str], None],
) -> None:
    """It is that of the last one, and its words name all of them where they lie."""
    files = []
    for name, workers in (("few", 1), ("many", 3)):
        sweep = {"base": str(recipe), "space": {"loss.mmd_weight": {"grid": [workers]}}}
        sweep |= {"objective": {"minimise": "mse"}, "workers": workers, "budget": {"trials": 1}}
        files.append(str(tmp_path / f"{name}.yaml"))
        Path(files[-1]).write_text(yaml.safe_dump(sweep), encoding="utf-8")
    fake_command("scontrol", "exit 0")
    fake_command("srun", "exit 0")
    fake_command("sbatch", f"cp $1 {tmp_path}/script; echo Submitted batch job 7")
    fake_command("squeue", "echo '7|COMPLETED|None|n1'")
    words = ["slurm", "sweep", *reversed(files), "--runs", str(runs)]
    assert main([*words, "--dry-run"]) == 0
    assert "#SBATCH --cpus-per-task=3\n" in capsys.readouterr().out
    assert main([*words, "--training.steps", "4"]) == 0
    found = session.open_session(runs / "few")
    for name in ("few", "many"):
        written = sweep_file.load(runs / name / "sweep.yaml", {})
        assert written.overrides == {"training.steps": 4}
    here = [str(runs / name / "sweep.yaml") for name in ("many", "few")]
    assert list(found.order.words) == ["sweep", *here, "--runs", str(runs)]
    options = Options(runs=runs)
    assert [options.path(file) for file in here] == [runs / "many", runs / "few"]
    found.completed()
    capsys.readouterr()
    assert main([*words, "--training.steps", "4"]) == 0
    assert "is finished" in capsys.readouterr().out


def test_room_is_asked_for_the_most_workers(
    recipe: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["slurm", "train", str(recipe), "--runs", str(runs), "--workers", "2..8", "--dry-run"]
    assert main(words) == 0
    assert "#SBATCH --cpus-per-task=8\n" in capsys.readouterr().out
    assert main([*words, "--cpus-per-task", "3"]) == 0


def test_a_sweep_is_submitted_when_there_is_something_to_do(
    recipe: Path,
    runs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fake_command: Callable[[str, str], None],
) -> None:
    """A start was cut short in its directory; it is submitted again only when it is larger."""
    sweep = {"base": str(recipe), "space": {"loss.mmd_weight": {"grid": [1]}}}
    sweep["objective"] = {"minimise": "mse"}
    file, home = tmp_path / "weights.yaml", runs / "weights"
    file.write_text(yaml.safe_dump(sweep))
    for name in (".sweep.yaml.x1", "slurm/lock"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    with locked(home):  # which leaves its record
        pass
    fake_command("scontrol", "exit 0")
    fake_command("srun", "exit 0")  # submitit looks for it before it submits
    fake_command("sbatch", f"echo x >> {tmp_path}/jobs; echo Submitted batch job 7")
    command = ["slurm", "sweep", str(file), "--runs", str(runs), "--concurrent", "2"]

    def state(of: str) -> None:
        fake_command("squeue", f"echo '7|{of}|None|n1'")

    state("COMPLETED")
    assert main(command) == 0
    loaded = sweep_file.load(home / "sweep.yaml", {})
    assert loaded.concurrent == 2 and sweep_file.dump(loaded) == (home / "sweep.yaml").read_text()
    found = session.open_session(home)
    found.completed()
    capsys.readouterr()
    assert main(command) == 0
    assert "is finished" in capsys.readouterr().out

    sweep["space"] = {"loss.mmd_weight": {"grid": [1, 3]}}
    file.write_text(yaml.safe_dump(sweep))
    state("RUNNING")
    assert main(command) == 0
    assert capsys.readouterr().out.count("is there already") == 1
    assert sweep_file.load(home / "sweep.yaml", {}) == loaded and found.is_complete()
    state("COMPLETED")
    assert main(command) == 0
    assert sweep_file.load(home / "sweep.yaml", {}) != loaded and not found.is_complete()
    assert (tmp_path / "jobs").read_text() == "x\nx\n"


def test_a_run_that_was_not_submitted_is_no_mystery(
    photos: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny.started(runs / "tiny", tiny.generator(photos))
    for command in ("status", "cancel", "logs"):
        assert main(["slurm", command, str(run.path)]) == 2
        said = capsys.readouterr().err
        assert re.search(r"was not submitted to Slurm; `gencomp status .*tiny` says", said)


def test_an_order_is_found_from_the_run_and_from_its_directory(
    photos: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny.started(runs / "tiny", tiny.generator(photos))
    words = ("train", "recipe.yaml")
    order = Order(kind="train", words=words, nodes=2, cpus=4, gpu=False, warning=120)
    made = SessionJobs(session.session(run.path, order))
    made.enter()
    assert SessionJobs.find(run.path) == SessionJobs.find(made.path) == made
    assert session.find(run.path / "checkpoints") is None
    assert made.missing() == [0] and made.session.progress_now() == (0, 12)
    job = Job(name="t", stage="train", executor="slurm", id="1", host="h")
    assert isinstance(made.task(job), Drive)
    assert main(["slurm", "collect", str(run.path)]) == 2
    assert "is no evaluation; `gencomp status" in capsys.readouterr().err

    (made.path / "order.json").write_text(order.model_dump_json().replace('"nodes":2', '"nodes":0'))
    with pytest.raises(InputError, match=r"order\.json cannot be read: nodes is 0, but"):
        session.find(run.path)
