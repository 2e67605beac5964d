"""Temporary directories of our clusters (short, locked, cleared later), and slow starts of Ray."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import ray

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


@pytest.mark.parametrize(
    "address", ["auto", "http://10.0.0.1:8265", "ray://10.0.0.1:10001", "10.0.0.1", "local", "a:b"]
)
def test_what_is_no_address_of_a_head_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's cluster that happens to be there, a dashboard, a client server."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match="host:port"):
        ray_runtime.address()
    with pytest.raises(InputError, match="host:port"), ray_runtime.cluster():
        pass


class TestSlowStart:
    """A node that a busy machine does not start in Ray's 30 s is started again."""

    @pytest.fixture(autouse=True)
    def _own_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ray_runtime.os, "environ", dict(os.environ))

    def starts(self, monkeypatch: pytest.MonkeyPatch, failures: int, error: Exception) -> list[int]:
        """Begin a cluster whose first starts fail; the length of the result counts the starts."""
        found: list[int] = []

        def init(**options: object) -> None:
            found.append(len(found))
            if len(found) <= failures:
                raise error

        monkeypatch.setattr(ray, "init", init)
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        try:
            with ray_runtime.cluster():
                pass
        except Exception as raised:
            assert raised is error
            found.append(-1)
        return found

    def test_it_is_started_again_and_given_up_in_the_end(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slow = Exception("The current node timed out during startup. This could happen because")
        assert self.starts(monkeypatch, 2, slow) == [0, 1, 2]
        assert self.starts(monkeypatch, 3, slow) == [0, 1, 2, -1]

    def test_other_errors_are_raised_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.starts(monkeypatch, 1, OSError("no room")) == [0, -1]

    def test_ray_still_says_it_in_these_words(self) -> None:
        assert ray_runtime._SLOW_START in inspect.getsource(ray._private.node)


@pytest.mark.parametrize("fails", [False, True])
def test_our_handler_outlives_that_of_ray(fails: bool) -> None:
    """Also where a start has failed, after which Ray is started again."""

    def ours(number: int, frame: object) -> None:
        """Ask the workers to stop."""

    before = signal.signal(signal.SIGTERM, ours)
    try:
        with suppress(RuntimeError), ray_runtime._own_handlers():
            signal.signal(signal.SIGTERM, lambda *_: None)  # as ray.init does
            if fails:
                raise RuntimeError("timed out during startup")
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)
