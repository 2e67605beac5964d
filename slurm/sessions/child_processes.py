"""Child processes of a job, which ignore Slurm's signals and never outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import AbstractContextManager, suppress

from cluster import processes

_PR_SET_CHILD_SUBREAPER = 36
# The signals that Slurm sends to a job. Only the job's first process answers them, and ends the
# others in order.
_SLURM_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


def deaf() -> AbstractContextManager[None]:
    """Processes that are started in the body leave Slurm's signals pending, as do their children.

    Slurm signals every process of a job. Ray's daemons would end at once, before a checkpoint could
    be written.
    """
    return processes.deaf(*_SLURM_SIGNALS)


def has_ended(pid: int) -> bool:
    """Whether a child has ended. It is not reaped; no lock is taken, so signal handlers may ask."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def adopt() -> None:
    """Make this process the new parent of orphaned descendants from now on (Linux only)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_all() -> None:
    """Kill every child, including adopted ones, until there is none left."""
    while children := processes.own_children():
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
