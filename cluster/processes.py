"""The processes of this machine: what Linux says of them in `/proc`, and what signals they get."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PROC = Path("/proc")


def born(pid: int) -> int | None:
    """The start of a process in ticks since boot; None if it is gone or a zombie."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[19])


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal or a debugger, as a job is that Slurm suspends."""
    fields = _stat(pid)
    return fields is not None and fields[0] in "Tt"


def _stat(pid: int) -> list[str] | None:
    """The fields of a process behind its name, its state first; None if it is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def boot_id() -> str:
    """The word that the running kernel chose when it started; empty if there is none."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def command_line(pid: int) -> bytes | None:
    """The words of a process, each followed by a zero byte; None if it is gone or a zombie."""
    try:
        # An unreaped process has no command line.
        return (_PROC / str(pid) / "cmdline").read_bytes() or None
    except (FileNotFoundError, ProcessLookupError):
        return None


def children(pid: int) -> list[int]:
    """The children of a process, including those of all its threads."""
    found: list[int] = []
    for thread in (_PROC / str(pid) / "task").glob("*"):
        with suppress(OSError):
            found += map(int, (thread / "children").read_text(encoding="utf-8").split())
    return found


def own_children() -> list[int]:
    """The children of this process, adopted ones too."""
    return children(os.getpid())


@contextmanager
def deaf(*signals: signal.Signals) -> Iterator[None]:
    """Processes that are started in the body leave some signals pending, as do their children.

    The signals stay masked even if a process installs a handler of its own.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
