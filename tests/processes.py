"""Command lines in processes of their own, and what the kernel says about all that they start."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.waiting import PATIENCE, wait_for

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


class Process(NamedTuple):
    """A process that cannot be taken for a later one with the same number."""

    pid: int
    started: int

    def command(self) -> str:
        try:
            return (
                Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            )
        except OSError:
            return ""

    def alive(self) -> bool:
        return _stat(self.pid) is not None and _of(self.pid) == self


def is_worker(process: Process) -> bool:
    """Whether a process trains, under Ray or without it."""
    return any(w in process.command() for w in ("RayTrainWorker", "-m cluster.one_process"))


def descendants(pid: int) -> set[Process]:
    """All living processes below one, not itself."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))) is not None:
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found, queue = set(), [pid]
    while queue:
        for child in children.get(queue.pop(), []):
            queue.append(child)
            if (process := _of(child)) is not None:
                found.add(process)
    return found


def listening(processes: set[Process]) -> set[str]:
    """Addresses on which TCP sockets of the processes listen."""
    return {address for address, _ in listening_at(processes)}


def listening_at(processes: set[Process]) -> set[tuple[str, int]]:
    """Addresses and ports on which TCP sockets of the processes listen."""
    inodes = set()
    for process in processes:
        for link in _open_files(process.pid):
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text(encoding="utf-8").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, _, port = fields[1].partition(":")
                found.add((_address(address, family), int(port, 16)))
    return found


def times_open(pid: int, path: Path) -> int:
    """How often a process has a file open."""
    return _open_files(pid).count(str(path.resolve()))


def gone(processes: set[Process], seconds: float = PATIENCE) -> bool:
    """Whether they all end within some time."""
    return wait_for(lambda: not any(process.alive() for process in processes), seconds)


def kill(process: Process) -> None:
    """kill -9, if it is still that process."""
    if process.alive():
        os.kill(process.pid, signal.SIGKILL)


class Driver:
    """One `gencomp train` in a process of its own, with everything that it starts."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.out, self.err = folder / "out", folder / "err"
        self.seen: set[Process] = set()
        self.started = time.time()
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gencomp.cli", *words],
                cwd=ROOT,
                env=ENVIRONMENT,
                stdout=out,
                stderr=err,
            )

    def look(self) -> set[Process]:
        """Processes below the driver now; all that were ever seen are remembered."""
        now = descendants(self.process.pid)
        self.seen |= now
        return now

    def workers(self) -> list[Process]:
        return sorted(p for p in self.look() if is_worker(p))

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait, as long as the driver lives."""

        def ended_or_true() -> bool:
            return self.process.poll() is not None or condition()

        assert wait_for(ended_or_true), self.words()
        assert self.process.poll() is None, self.words()

    def end(self) -> int:
        """Wait for the end of the driver and of everything below it; its exit code."""
        while self.process.poll() is None:
            self.look()
            wait_for(lambda: self.process.poll() is not None, 0.2)
        assert gone(self.seen), [p.command() for p in self.seen if p.alive()]
        return self.process.returncode

    def crash(self) -> None:
        """kill -9; returns when all that works or supervises has ended.

        Ray's agents, and workers that were only just starting, notice the death of their node last.
        """
        idle = ("Agent", "default_worker.py")  # a worker that has begun has another title
        working = {p for p in self.look() if not any(word in p.command() for word in idle)}
        self.process.kill()
        self.process.wait()
        assert gone(working), [p.command() for p in working if p.alive()]

    def words(self) -> str:
        return self.out.read_text() + self.err.read_text()

    def close(self) -> None:
        """Kill what a failed test left, and clear what a killed driver could not."""
        self.look()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in self.seen:
            kill(process)


def _open_files(pid: int) -> list[str]:
    links = []
    # A file, or the whole process, may go while one looks.
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                links.append(os.readlink(descriptor))
    return links


def _of(pid: int) -> Process | None:
    stat = _stat(pid)
    return None if stat is None else Process(pid, int(stat[19]))


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the state on; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields


def _address(hexadecimal: str, family: socket.AddressFamily) -> str:
    words = [int(hexadecimal[i : i + 8], 16) for i in range(0, len(hexadecimal), 8)]
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))
