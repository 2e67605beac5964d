"""Files that are whole or not there, and locks on directories."""

from __future__ import annotations

import fcntl
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gencomp.errors import InputError


def write_bytes(path: Path, data: bytes, durable: bool = True) -> None:
    """Replace a file in one step; when that fails, nothing is left behind.

    Args:
        path: its directory is made if need be.
        data: the whole content.
        durable: wait until it is on the disk; not needed for what is only looked at.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8) in one step."""
    write_bytes(path, bytes(text, "utf-8"))


@contextmanager
def locked(directory: Path, refusal: str = "{directory} is in use by {holder}") -> Iterator[None]:
    """Hold a directory against a second writer; the system frees it when we die.

    Args:
        directory: a run, a sweep or an evaluation.
        refusal: the sentence for the second one.

    Raises:
        InputError: somebody else works on it now.
    """
    with (directory / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            raise InputError(refusal.format(directory=directory, holder=holder)) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def lock_holder(directory: Path) -> int | None:
    """The process on this machine that holds the directory, if one does."""
    try:
        with (directory / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                _, pid, _, host = file.read().split()
                return int(pid) if host == platform.node() else None
    except FileNotFoundError:
        pass
    return None
