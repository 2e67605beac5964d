"""Many files: one after another in this process, or in as many processes as they are worth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from cluster.compressed_files.places import SUFFIX, Job
from cluster.compressed_files.work import Done, pixels
from gencomp.errors import InputError
from shards.pool import in_order, usable_cpus
from shards.reading import decode

# The CPU time that a process takes to start: it imports torch and reads the run.
# Unlike the clock, CPU time does not depend on what else the machine does.
START_SECONDS = 3.0

Work = Callable[[Job], Done]


class Failed(NamedTuple):
    """A file that was not written; the sentence says why."""

    sentence: str


def work_on(
    jobs: Sequence[Job], work: Work, keep: bool, processes: int | None = None
) -> Iterator[Done | Failed]:
    """Work on files and give their results in order; a bad file does not stop the others.

    Without a number of processes, this process works alone for as much CPU time as another takes to
    start. Then it knows what the pixels that are left will take, and several processes take over
    only if each has enough of them.

    Args:
        jobs: The files to do.
        work: The picklable function that works on one file.
        keep: Whether files that exist are kept, so that they take almost no time.
        processes: The number of processes; 1 means this very process.

    Raises:
        ShardError: A process was killed.
    """
    if processes is not None:
        yield from _in_processes(work, jobs, min(processes, len(jobs)))
        return
    begin, done = time.process_time(), 0
    for number, job in enumerate(jobs):
        if (spent := time.process_time() - begin) >= START_SECONDS:
            left = sum(_pixels(job, keep) for job in jobs[number:])
            count = worth(spent * left / max(1, done), usable_cpus())
            yield from _in_processes(work, jobs[number:], count)
            return
        done += _pixels(job, keep)
        yield _attempt(work, job)


def worth(seconds: float, cpus: int) -> int:
    """The number of processes that some work is worth: each works as long as it takes to start.

    Args:
        seconds: The CPU time that the work takes.
        cpus: The number of CPUs, and so of processes at most.
    """
    return max(1, min(cpus, int(seconds / START_SECONDS)))


def require_processes(processes: int | None) -> None:
    """Raise `InputError` unless at least one process is asked for."""
    if processes is not None and processes < 1:
        raise InputError(f"--processes is {processes}, it must be at least 1")


def _in_processes(work: Work, jobs: Sequence[Job], processes: int) -> Iterator[Done | Failed]:
    return in_order(partial(_attempt, work), jobs, processes, watch=lambda counts: None)


def _attempt(work: Work, job: Job, report: Callable[[int], None] | None = None) -> Done | Failed:
    """The result of a job, of which the pool's `report` is told nothing before its end."""
    try:
        return work(job)
    except InputError as error:
        return Failed(str(error))


def _pixels(job: Job, keep: bool) -> int:
    """The number of pixels that a job has to work on; 0 where that is not known, or nothing."""
    if keep and job.target.exists():
        return 0
    if job.pixels is not None:
        return job.pixels
    if job.source.suffix.lower() != SUFFIX:
        return decode.stated_pixels(job.source)
    try:
        return sum(pixels(job.source))
    except InputError:
        return 0
