"""A finished tiny run, and evaluations of it."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shards.building.build import build
from tests.conftest import ROOT
from tests.curves import SMALL, evaluate, finished, run, tuned  # noqa: F401


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def fake_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a shell script in front of the PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")

    def write(name: str, body: str) -> None:
        path = directory / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return write


MODEL = """
import torch

class Linear(torch.nn.Module):
    latent_dim = 3

    def __init__(self):
        super().__init__()
        self.decode = torch.nn.Sequential(torch.nn.Linear(3, 192))
"""


@pytest.fixture(scope="session")
def small_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of 8×8 pixels that no test changes."""
    out = tmp_path_factory.mktemp("data") / "photos"
    build("photos", out, options={"size": "8"}, limit=48)
    return out


@pytest.fixture
def own(small_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Words that name a model of one's own, in the working directory, and where its curve goes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_linear.py").write_text(MODEL)
    torch.manual_seed(4)
    state = {"decode.0.weight": torch.randn(192, 3) / 8, "decode.0.bias": torch.rand(192) / 2}
    torch.save({"state_dict": state}, tmp_path / "linear.pt")
    words = ["--model", "my_linear:Linear", "--weights", "linear.pt", "--output", "curve"]
    return [*words, "--shards", str(small_photos)]


def options(**changes: Any) -> list[str]:
    """SMALL, with changes, as options of `gencomp slurm ais`."""
    merged = {**SMALL, "cpus_per_task": SMALL["threads"], "jobs": 2, **changes}
    del merged["threads"]
    return [w for k, v in merged.items() for w in (f"--{k.replace('_', '-')}", *str(v).split())]


def started(job: Callable[[], None]) -> subprocess.Popen[bytes]:
    """A job in a process of its own."""
    code = "import pickle, sys; pickle.load(sys.stdin.buffer)()"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdin is not None
    process.stdin.write(pickle.dumps(job))
    process.stdin.close()
    return process
