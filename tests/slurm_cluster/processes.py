"""The processes of a cluster, found without pid files, whose numbers are used again.

A daemon holds its log open, and so do the stepds that it starts. What runs inside a job descends
from a stepd, or has the variables of one in its environment.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path

from tests.processes import Process, descendants, gone, kill

_PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmstepd")


def holding(log: Path) -> set[Process]:
    """Daemons and stepds that have a file open."""
    return {
        process
        for process in descendants(0)
        if program(process) in _PROGRAMS and str(log) in _open_files(process)
    }


def of_node(log: Path, slurm_conf: Path, node: str) -> set[Process]:
    """A node's daemon, the stepds and all that runs in its jobs."""
    marks = {f"SLURM_CONF={slurm_conf}".encode(), f"SLURMD_NODENAME={node}".encode()}
    found = holding(log)
    for process in list(found):
        found |= descendants(process.pid)
    return found | {process for process in descendants(0) if marks <= _environment(process)}


def stop(processes: Iterable[Process], patience: float = 1.0) -> None:
    """SIGTERM, and SIGKILL for what has not ended within `patience` seconds."""
    processes = set(processes)
    for process in processes:
        if process.alive():
            os.kill(process.pid, signal.SIGTERM)
    if not gone(processes, patience):
        crash(processes)


def crash(processes: Iterable[Process]) -> None:
    """SIGKILL, daemons and stepds first: nobody reports the end of the others."""
    processes = sorted(processes, key=lambda process: program(process) not in _PROGRAMS)
    for process in processes:
        kill(process)
    if not gone(set(processes)):
        raise RuntimeError(f"cannot be killed: {[process.command() for process in processes]}")


def program(process: Process) -> str:
    """The name of the program that a process runs; empty if it is gone."""
    try:
        return Path(f"/proc/{process.pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _open_files(process: Process) -> set[str]:
    # Files are opened and closed, and the process may go, while one looks.
    found = set()
    try:
        for descriptor in os.listdir(f"/proc/{process.pid}/fd"):
            try:
                found.add(os.readlink(f"/proc/{process.pid}/fd/{descriptor}"))
            except OSError:
                continue
    except OSError:
        pass
    return found


def _environment(process: Process) -> set[bytes]:
    try:
        return set(Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return set()
