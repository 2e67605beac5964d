"""The temporary directory of a process, for secrets and for Ray. Nobody else may enter it.

    gencomp-XXXXXXXX/
      alive    locked while the process lives; it names the host and its boot
      ray/     Ray's own temporary directory, which Ray opens to all users of the host
      ...      tokens, and what else the process puts here

It is removed when the process ends, or, if the process was killed, by a later one on the same host.
It may lie on storage that hosts share, where a lock of another host may look free. What is left of
a killed process when its host starts anew stays there.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import platform
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import IO

from cluster import processes
from gencomp.errors import InputError

# The longest path of a socket in Linux, in bytes, and the longest one that Ray makes in a base.
_SOCKET_BYTES = 107
_SOCKET = "/gencomp-XXXXXXXX/ray/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store"
_LONGEST_BASE = _SOCKET_BYTES - len(_SOCKET)
_PREFIX, _ALIVE = "gencomp-", "alive"
_open_locks: list[IO[bytes]] = []


@cache
def directory() -> Path:
    """This process's temporary directory, which only this user may enter.

    Raises:
        InputError: there is no place for it in which paths are short enough for Ray.
    """
    place = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_base()))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    # The file is locked before it gets its name, so that it is never found unlocked while we live.
    lock = open(place / ".alive", "wb", opener=_private)
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.write(_this_host())
    lock.flush()
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
    """Remove the workplaces of our killed processes on this host, whose locks are free again."""
    for place in _base().glob(f"{_PREFIX}*"):
        try:
            if place.lstat().st_uid != os.getuid():
                continue
            with (place / _ALIVE).open("rb") as lock:
                if lock.read() != _this_host():
                    continue
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        shutil.rmtree(place, ignore_errors=True)


def _base() -> Path:
    """The parent of temporary directories: the usual one, or /tmp where its path is too long."""
    try:
        usual = tempfile.gettempdir()
    except FileNotFoundError:
        usual = ""
    for base in filter(None, (usual, "/tmp")):
        if len(os.fsencode(base)) <= _LONGEST_BASE and os.access(base, os.W_OK | os.X_OK):
            return Path(base)
    too_long = f", and paths of sockets in {usual} would be too long" if usual else ""
    raise InputError(
        f"Ray has no place for its temporary files: /tmp cannot be written{too_long};"
        f" set TMPDIR to a directory whose path has at most {_LONGEST_BASE} bytes"
    )


def _this_host() -> bytes:
    """The name of this host and the running kernel's own word, which no other host has."""
    return json.dumps({"host": platform.node(), "boot": processes.boot_id()}).encode()


def _private(path: str, flags: int) -> int:
    """Open a file that only this user may read and write, whatever the umask."""
    return os.open(path, flags, 0o600)
