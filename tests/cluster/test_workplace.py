"""Temporary directories: short, locked, closed to others, and cleared when they are dead."""

from __future__ import annotations

import inspect
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from ray._private.utils import validate_socket_filepath

from cluster import workplace
from gencomp.errors import InputError
from tests.processes import ENVIRONMENT
from tests.waiting import wait_for

_HOLD = """
import signal
from cluster import workplace
print(workplace.directory(), flush=True)
signal.pause()
"""


@pytest.fixture
def holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A process with a workplace, whose path is the first line that it prints."""
    monkeypatch.setattr(workplace, "_base", lambda: Path("/tmp"))
    command = [sys.executable, "-c", _HOLD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_a_living_workplace_is_left_alone_and_a_dead_one_is_cleared(
    holder: subprocess.Popen[str],
) -> None:
    assert holder.stdout is not None
    directory = Path(holder.stdout.readline().strip())
    workplace.remove_leftovers()
    assert directory.is_dir()
    holder.kill()
    holder.wait()
    assert directory.is_dir()
    workplace.remove_leftovers()
    assert not directory.exists()


def test_what_is_not_ours_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = tmp_path / "gencomp-notes"
    foreign.mkdir()
    monkeypatch.setattr(workplace, "_base", lambda: tmp_path)
    workplace.remove_leftovers()
    assert foreign.is_dir()


@pytest.mark.parametrize(
    ("record", "is_removed"),
    [
        ({}, True),
        ({"host": "another"}, False),
        ({"boot": "another"}, False),
        (None, False),
    ],
    ids=["this host", "another host", "another boot", "no record"],
)
def test_only_leftovers_of_this_host_are_removed(
    record: dict[str, str] | None,
    is_removed: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On storage that hosts share, a lock that another host holds may look free."""
    monkeypatch.setattr(workplace, "_base", lambda: tmp_path)
    other = tmp_path / "gencomp-other"
    other.mkdir()
    written = "" if record is None else json.dumps(json.loads(workplace._this_host()) | record)
    (other / "alive").write_text(written)
    workplace.remove_leftovers()
    assert other.exists() is not is_removed


class TestPathsOfSockets:
    """Linux takes 107 bytes, in which Ray puts a date and the number of a process."""

    @pytest.fixture
    def base(self) -> Iterator[Callable[[int], Path]]:
        """A new directory whose path has a number of bytes."""
        made: list[Path] = []

        def make(size: int) -> Path:
            path = "/tmp/é"
            path += secrets.token_hex(size)[: size - len(os.fsencode(path))]
            made.append(Path(path))
            made[-1].mkdir()
            return made[-1]

        yield make
        for path in made:
            path.rmdir()

    def test_they_fit_or_another_place_is_taken(
        self, base: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for size in (12, 13, 20, 22, 23, 40):
            usual = base(size)
            monkeypatch.setattr(tempfile, "tempdir", str(usual))
            found = workplace._base()
            assert found == (usual if size <= 22 else Path("/tmp"))
            validate_socket_filepath(f"{found}{workplace._SOCKET}")
        with pytest.raises(OSError, match="107 bytes"):
            validate_socket_filepath(f"{base(23)}{workplace._SOCKET}")

    def test_they_are_what_ray_and_we_make(self) -> None:
        source = inspect.getsource(ray._private.node)
        assert 'f"session_{date_str}_{os.getpid()}"' in source
        assert '"%Y-%m-%d_%H-%M-%S_%f"' in source
        relative = workplace.ray_directory().relative_to(workplace._base())
        assert len(str(relative)) == len("gencomp-XXXXXXXX/ray")

    @pytest.mark.parametrize("usual", ["/scratch/users/somebody/job-123", ""])
    def test_no_place_is_refused_with_the_mend(
        self, usual: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def gettempdir() -> str:
            if not usual:
                raise FileNotFoundError("No usable temporary directory found")
            return usual

        monkeypatch.setattr(tempfile, "gettempdir", gettempdir)
        monkeypatch.setattr(os, "access", lambda *_: False)
        with pytest.raises(InputError, match=r"set TMPDIR to .* at most 22 bytes"):
            workplace._base()


# Everything that lies in the temporary directory, as on a node of Slurm, in a job and in a driver
# of its own; the directories are made by Ray's own function.
_FILL = """
import os, sys
os.umask(int(sys.argv[1], 8))
import ray
from ray._common.utils import try_to_create_directory
from cluster import ray_runtime, workplace
from slurm.sessions import ray_cluster, ray_node

def begin(temporary):
    for name in ("", "session_x", "session_x/sockets"):
        try_to_create_directory(os.path.join(temporary, name))

own = dict(own="127.0.0.1", peer="127.0.0.1", head=None, cpus=1, gpu=False, token="secret")
ray_node.variables(own)
begin(next(w for w in ray_node.command(own) if "temp-dir" in w).partition("=")[2])
ray_cluster._variables("10.0.0.1:1", "secret")
print(workplace.directory(), flush=True)
ray.init = lambda **options: (begin(options["_temp_dir"]), sys.stdin.readline())
with ray_runtime.cluster():
    pass
"""


@pytest.mark.parametrize("umask", ["000", "022", "077"])
def test_nobody_else_can_write_or_replace_anything(umask: str) -> None:
    """Ray gives its directories to all users, and a token beside them could be replaced."""
    with subprocess.Popen(
        [sys.executable, "-c", _FILL, umask],
        env={**ENVIRONMENT, "TMPDIR": "/tmp"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        place = Path(process.stdout.readline().strip())
        assert wait_for(lambda: len(list(place.rglob("sockets"))) == 1)
        assert {"token", "cluster-token", "alive"} <= {path.name for path in place.iterdir()}
        assert not list(writable_by_others(place))
        process.communicate()
    assert process.returncode == 0 and not place.exists()


def writable_by_others(path: Path) -> Iterator[Path]:
    """What group or others can write or replace, of all that they can reach."""
    mode = path.lstat().st_mode
    if mode & 0o022 and not path.is_symlink():
        yield path
    if path.is_dir() and mode & 0o011:
        for below in path.iterdir():
            yield from writable_by_others(below)
