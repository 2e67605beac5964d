"""Temporary directories of our clusters: short, locked while their process lives, cleared later."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import ray_runtime
from gencomp.errors import InputError

_HOLD = """
import signal
from cluster import ray_runtime
print(ray_runtime.workplace(), flush=True)
signal.pause()
"""


@pytest.fixture
def holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A process with a workplace, whose path is the first line that it prints."""
    monkeypatch.setattr(ray_runtime, "_base", lambda: Path("/tmp"))
    command = [sys.executable, "-c", _HOLD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_a_living_workplace_is_left_alone_and_a_dead_one_is_cleared(
    holder: subprocess.Popen[str],
) -> None:
    assert holder.stdout is not None
    directory = Path(holder.stdout.readline().strip())
    ray_runtime.remove_leftovers()
    assert directory.is_dir()
    holder.kill()
    holder.wait()
    assert directory.is_dir()
    ray_runtime.remove_leftovers()
    assert not directory.exists()


def test_what_is_not_ours_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = tmp_path / "gencomp-notes"
    foreign.mkdir()
    monkeypatch.setattr(ray_runtime, "_base", lambda: tmp_path)
    ray_runtime.remove_leftovers()
    assert foreign.is_dir()


def test_a_long_temporary_directory_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ray_runtime.tempfile, "gettempdir", lambda: "/scratch/users/somebody/job-123"
    )
    assert ray_runtime._base() == Path("/tmp")


def test_joining_whatever_is_around_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(InputError, match="host:port"), ray_runtime.cluster():
        pass
