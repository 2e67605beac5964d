"""Requests to Slurm from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gencomp.cli import main
from gencomp.cli.slurm.allocation import Allocation
from gencomp.cli.slurm.submission import Submission
from gencomp.errors import InputError
from slurm.jobs import profile

WHOLE = """
partition: gpu
gres: gpu:4
time: 4:00:00
mem: 8G
nodes: 2
cpus-per-task: 16
setup: [module load cuda/12.4]
sbatch: [exclude=n7, exclusive]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(WHOLE)
    return path


def test_the_command_line_wins(file: Path) -> None:
    asked = Allocation(partition="main", setup=("umask 027",), nodes=4, profile=file).completed()
    assert (asked.partition, asked.gres, asked.nodes, asked.cpus_per_task) == (
        "main",
        "gpu:4",
        4,
        16,
    )
    assert asked.minutes == 240  # and no number in the base of 60
    assert asked.setup == ("module load cuda/12.4", "umask 027")
    assert asked.sbatch == ("exclude=n7", "exclusive")


def test_what_a_command_has_no_use_for_is_left_aside(file: Path) -> None:
    asked = Submission(profile=file, cpus_per_task=2).completed()
    assert (asked.cpus, asked.mem) == (2, "8G")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("parttion: gpu", "unknown key parttion; did you mean partition[?]"),
        ("cpus_per_task: 2", "unknown key cpus_per_task; did you mean cpus-per-task[?]"),
        ("xyz: 2", "unknown key xyz; allowed here are account, constraint, container"),
        ("nodes: 0", "nodes is '0', but it should be greater than or equal to 1"),
        ("setup: module load cuda", "setup is 'module load cuda', but it should be a list"),
        ("gres: [gpu:1]", r"gres is \['gpu:1'\], but it should be a valid string"),
        ("- gpu", "must be a mapping of options to values"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_other_files_are_refused(text: str, sentence: str, file: Path) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=f"--profile {file}.*{sentence}"):
        profile.read(file)


def test_a_wrong_time_in_it_is_refused(file: Path) -> None:
    file.write_text("time: soon", encoding="utf-8")
    with pytest.raises(InputError, match="--time 'soon' must be minutes"):
        Allocation(profile=file).completed()


def test_a_missing_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["slurm", "evaluate", "runs/g", "--profile", str(tmp_path / "none.yaml")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.endswith("none.yaml cannot be read: No such file or directory\n")
    assert len(said.splitlines()) == 1
