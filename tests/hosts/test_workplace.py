"""Temporary directories on storage that hosts share: each host clears only what is its own."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts import Hosts

pytestmark = pytest.mark.hosts
HOLD = """
import signal
from cluster import workplace
print(workplace.directory(), flush=True)
signal.pause()
"""
CLEAR = "from cluster import workplace; workplace.remove_leftovers()"


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory whose path is short enough for Ray's sockets."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    yield path
    shutil.rmtree(path)


def test_leftovers_of_another_host_or_boot_are_left_alone(shared: Path) -> None:
    temporary = {"TMPDIR": str(shared)}

    def holder() -> tuple[subprocess.Popen[str], Path]:
        words = (sys.executable, "-c", HOLD)
        process = hosts.start("n1", *words, stdout=subprocess.PIPE, env=temporary)
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    def clear(name: str) -> None:
        hosts.run(name, sys.executable, "-c", CLEAR, env=temporary)

    with Hosts(2, shared) as hosts:
        process, place = holder()
        assert place.parent == shared
        hosts.own_file("n2", place / "alive")  # its lock looks free there
        clear("n2")
        clear("n1")
        assert place.is_dir()
        hosts.signal(process, signal.SIGKILL)
        process.wait()
        clear("n2")
        assert place.is_dir()
        clear("n1")
        assert not place.exists()

        _, place = holder()
        hosts.cut_power("n1")
        hosts.boot("n1")
        clear("n1")
        assert place.is_dir()
