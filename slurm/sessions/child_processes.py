"""Child processes of a job: deaf to Slurm's signals, and none that outlives its parent."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cluster import processes

_PR_SET_CHILD_SUBREAPER = 36
# What Slurm sends to a job; the job's first process alone answers, and tells the others in order.
_OF_SLURM = (signal.SIGTERM, signal.SIGUSR2)


@contextmanager
def deaf() -> Iterator[None]:
    """Processes started in the body, and theirs, leave Slurm's signals pending for ever.

    Slurm signals every process of a job. Ray's daemons would end at once, before a checkpoint could
    be written; a handler of their own that they install does not undo the mask.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_SLURM)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def has_ended(pid: int) -> bool:
    """Whether a child has ended; it is not reaped. Takes no lock, so signal handlers may ask."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def adopt() -> None:
    """From now on, what descendants leave behind becomes a child of this process (Linux only)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_all() -> None:
    """Kill every child, adopted ones too, until there is none."""
    while children := processes.own_children():
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
