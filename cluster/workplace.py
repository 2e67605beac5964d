"""The temporary directory of a process, for secrets and for Ray. Nobody else may enter it.

    gencomp-PID-XXXXXXXX/
      alive    locked while the process lives
      ray/     Ray's own temporary directory, which Ray opens to all users of the host
      ...      tokens, and what else the process puts here

It is removed when the process ends, or, if the process was killed, by a later one.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import IO

_LONGEST_BASE = 20
_ALIVE = "alive"
_open_locks: list[IO[bytes]] = []


@cache
def directory() -> Path:
    """This process's temporary directory, which only this user may enter."""
    place = Path(tempfile.mkdtemp(prefix=f"gencomp-{os.getpid()}-", dir=_base()))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    # The file is locked before it gets its name, so that it is never found unlocked while we live.
    lock = open(place / ".alive", "wb", opener=_private)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.rename(place / ".alive", place / _ALIVE)
    _open_locks.append(lock)
    return place


def ray_directory() -> Path:
    """Ray's temporary directory. Ray lets all users write there, so it lies in ours."""
    place = directory() / "ray"
    place.mkdir(exist_ok=True)
    return place


def private_file(name: str, text: str) -> Path:
    """Write a file in the workplace that only this user may read, such as a token."""
    path = directory() / name
    with open(path, "w", encoding="utf-8", opener=_private) as file:
        file.write(text)
    return path


def remove_leftovers() -> None:
    """Remove the workplaces of our killed processes, whose locks are not held any more."""
    for place in _base().glob("gencomp-*"):
        try:
            if place.lstat().st_uid != os.getuid():
                continue
            with (place / _ALIVE).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        shutil.rmtree(place, ignore_errors=True)


def _base() -> Path:
    """The parent of temporary directories; paths of Ray's sockets below must fit into 107 bytes."""
    base = tempfile.gettempdir()
    return Path(base if len(base) <= _LONGEST_BASE else "/tmp")


def _private(path: str, flags: int) -> int:
    """Open a file that only this user may read and write, whatever the umask."""
    return os.open(path, flags, 0o600)
