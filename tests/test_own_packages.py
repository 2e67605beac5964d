"""A user's files that have the names of our packages are never imported in their place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.runs import Run
from gencomp.cli import main
from tests import tiny
from tests.processes import ENVIRONMENT, ROOT
from tests.waiting import PATIENCE

NAMES = ("cluster", "shards", "slurm", "sweeps")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's directory with such files, and with some that have the names of libraries."""
    for name in (*NAMES, "numpy", "queue", "yaml"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this file is the user\\'s')\n")
    return tmp_path


def command(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command line as the installed program runs it, whose path does not begin here."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "gencomp.cli", *words],
        cwd=cwd,
        env={**ENVIRONMENT, "PYTHONSAFEPATH": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("package", [False, True])
def test_an_intruder_is_named(name: str, package: bool, tmp_path: Path) -> None:
    """The path begins with the user's directory after all."""
    file = tmp_path / name / "__init__.py" if package else tmp_path / f"{name}.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text("raise SystemExit('this file is the user\\'s')\n")
    found = subprocess.run(
        [sys.executable, "-P", "-m", "gencomp.cli", "recipes"],
        env={**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert found.returncode == 2
    assert found.stderr == (
        f"gencomp: error: {file} would be imported in place of gencomp's own package {name}:"
        " rename it, or take its directory out of PYTHONPATH\n"
    )


def test_a_program_that_calls_a_command_keeps_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Scripts that the program starts later still find what lies beside them."""
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    assert main(["recipes"]) == 0
    assert "PYTHONSAFEPATH" not in os.environ


def test_a_worker_and_jobs_are_started_among_them(photos: Path, home: Path) -> None:
    """Training without Ray, then the pilot and the jobs of a curve."""
    raw = tiny.generator(photos, {"training.steps": 4})
    tiny.write(raw, home / "tiny.yaml")
    trained = command("train", "tiny.yaml", cwd=home)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    small = "--images 2 --block 1 --chains 4 --temperatures 4 --points 2 --bdmc-images 0"
    pilot = "--pilot-images 1 --pilot-temperatures 4 --leapfrog 2 --executor local --jobs 1"
    curve = command("slurm", "ais", "runs/tiny", *small.split(), *pilot.split(), cwd=home)
    assert curve.returncode == 0, curve.stdout + curve.stderr


@pytest.mark.slow
def test_rays_workers_are_started_among_them(photos: Path, home: Path) -> None:
    raw = tiny.generator(photos, {"training.steps": 4})
    tiny.write(raw, home / "tiny.yaml")
    trained = command("train", "tiny.yaml", "--ray", cwd=home)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert Run(home / "runs" / "tiny").result() is not None
