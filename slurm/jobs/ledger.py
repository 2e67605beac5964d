"""The record of submitted jobs in `jobs.json`, and which of these jobs are still alive."""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from pydantic import TypeAdapter

from cluster import processes
from cluster.files import write_bytes
from slurm.jobs import queue
from slurm.jobs.job import Job
from slurm.jobs.job_set import JobSet

_JOBS = TypeAdapter(tuple[Job, ...])


def read(evaluation: JobSet) -> tuple[Job, ...]:
    """All jobs that were ever submitted, oldest first."""
    path = evaluation.path / "jobs.json"
    return _JOBS.validate_json(path.read_bytes()) if path.exists() else ()


def record(evaluation: JobSet, jobs: Iterable[Job]) -> None:
    """Append jobs, or replace those of the same name."""
    known = {job.name: job for job in read(evaluation)}
    known.update({job.name: job for job in jobs})
    _write(evaluation, known.values())


def _write(evaluation: JobSet, jobs: Iterable[Job]) -> None:
    write_bytes(evaluation.path / "jobs.json", _JOBS.dump_json(tuple(jobs), indent=1) + b"\n")


def forget(evaluation: JobSet, jobs: Iterable[Job]) -> None:
    """Take jobs out of the record, as if they had never been submitted."""
    names = {job.name for job in jobs}
    _write(evaluation, [job for job in read(evaluation) if job.name not in names])


def current(evaluation: JobSet) -> list[Job]:
    """The jobs that are the newest for at least one block, or the newest of a stage without any."""
    newest: dict[int | str, Job] = {}
    jobs = read(evaluation)
    for job in jobs:
        newest.update(dict.fromkeys(job.blocks or (job.stage,), job))
    kept = {job.name for job in newest.values()}
    return [job for job in jobs if job.name in kept]


def living(jobs: Iterable[Job]) -> list[Job]:
    """The jobs among these that wait in a queue or run."""
    jobs = [job for job in jobs if job.id is not None]
    looks = queue.look_up([job.id for job in jobs if job.executor == "slurm" and job.id])
    alive = queue.active(looks)
    return [
        job for job in jobs if (job.id in alive if job.executor == "slurm" else process_lives(job))
    ]


def process_lives(job: Job) -> bool:
    """Whether a local job's controller still runs on this machine."""
    if job.executor != "local" or job.id is None or job.host != platform.node():
        return False
    return _is_controller(int(job.id))


def stop_processes(jobs: Iterable[Job], patience: float = 20.0) -> None:
    """Ask local jobs to save and end, and kill those that do not end within `patience` seconds."""
    left = [int(job.id) for job in jobs if job.id and process_lives(job)]
    deadline = time.monotonic() + patience
    while left and time.monotonic() < deadline:
        for pid in left:
            # The controller passes the signal on. A process that is starting may miss one signal,
            # so it is sent each time.
            _signal(pid, signal.SIGTERM)
        pause = time.monotonic() + 1.0
        while left and time.monotonic() < pause:
            time.sleep(0.05)
            left = [pid for pid in left if _is_controller(pid)]
    for pid in left:
        for child in processes.children(pid):
            _signal(child, signal.SIGKILL)
        _signal(pid, signal.SIGKILL)


def _is_controller(pid: int) -> bool:
    """Whether a process is submitit's controller, by its command line, as numbers are reused."""
    if not Path("/proc/self").exists():
        return _signal(pid, 0)
    return b"submitit.local._local" in (processes.command_line(pid) or b"")


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
