"""Jobs in folders of odd names, and jobs that are submitted from inside other jobs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from submitit.slurm.slurm import SlurmExecutor

from cluster.runs import Run
from gencomp.cli import main
from gencomp.errors import InputError
from slurm.jobs.options import Shape, SlurmOptions, parameters
from slurm.jobs.sbatch import outside_of_jobs, python, require_plain_name
from tests.slurm.conftest import options
from tests.waiting import wait_for

ODD = "# ? & ; ' \" $HOME ( ) [ ] { } * ~ ü\t,="
# What a job finds in its environment, as an array job of another program has it.
OUTER = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOBID": "4711",
    "SLURM_ARRAY_JOB_ID": "4710",
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_ARRAY_TASK_COUNT": "9",
    "SLURM_NTASKS": "7",
    "SLURM_CPUS_PER_TASK": "99",
    "SLURM_MEM_PER_NODE": "900000",
    "SBATCH_ARRAY_INX": "0-9",
}


def speak(result: Path) -> None:
    """The work of a job: it writes to its error stream below Python, and makes a file."""
    os.write(2, f"said on the way in {os.getcwd()}\n".encode())
    result.touch()


def submitted(logs: Path, results: list[Path]) -> None:
    """Submit a job for each result, which is a file that the job makes, and wait for all."""
    logs.mkdir(parents=True)
    executor = SlurmExecutor(logs, python=python())
    shape = Shape(name="odd", comment="odd")
    executor.update_parameters(**parameters(SlurmOptions(time="1"), shape))
    with outside_of_jobs(), executor.batch():
        handles = [executor.submit(speak, path) for path in results]
    assert wait_for(lambda: all(path.exists() for path in results), 60)
    for handle in handles:
        # What Slurm itself writes, which is not what submitit does.
        log = logs / f"{handle.job_id}_0_log.err"
        assert wait_for(lambda log=log: "said on the way" in log.read_text(), 60)


@pytest.mark.slurm
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_folder_of_any_name(jobs: int, tmp_path: Path) -> None:
    """A single job and an array: logs and results are where they are looked for."""
    submitted(tmp_path / ODD / "logs", [tmp_path / f"result{n}" for n in range(jobs)])
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [ODD]


@pytest.mark.slurm
@pytest.mark.parametrize("jobs", [1, 2])
def test_from_inside_an_array_job(
    jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in OUTER.items():
        monkeypatch.setenv(name, value)
    submitted(tmp_path / "logs", [tmp_path / f"result{n}" for n in range(jobs)])
    assert {name: os.environ[name] for name in OUTER} == OUTER


def test_what_a_user_sets_for_all_submissions_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"SBATCH_ACCOUNT": "lab", "SLURM_CONF": "/etc/slurm.conf"}
    for name, value in {**OUTER, **kept}.items():
        monkeypatch.setenv(name, value)
    with outside_of_jobs():
        left = {k: v for k, v in os.environ.items() if k.startswith(("SLURM_", "SBATCH_"))}
    assert left == kept


def test_scripts_of_setup_lines_find_what_lies_beside_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What keeps the current directory off the path of our children is not handed to jobs."""
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    with outside_of_jobs():
        assert "PYTHONSAFEPATH" not in os.environ
    assert os.environ["PYTHONSAFEPATH"] == "1"


@pytest.mark.parametrize("letter", ["%", "%j", "\\", "\n"])
def test_names_that_slurm_expands_are_refused(letter: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="jobs cannot write logs there, so rename the directory"):
        require_plain_name(tmp_path / f"a{letter}b" / "logs", "slurm")
    require_plain_name(tmp_path / ODD / "logs", "slurm")
    require_plain_name(tmp_path / "50%" / "logs", "local")


def test_nothing_is_submitted_from_such_a_directory(
    finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line refuses in one sentence, and no job is recorded."""
    run = Path(shutil.copytree(finished.path, tmp_path / "50%j" / "g"))
    words = ["slurm", "ais", str(run), *options(executor="local")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("gencomp: error: ") and said.count("\n") == 1
    assert "has the letters %j in its name" in said
    assert not (run / "evaluations" / "ais" / "jobs.json").exists()
