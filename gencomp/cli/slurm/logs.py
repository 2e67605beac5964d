"""`gencomp slurm logs`, which prints what a job has printed in all of its attempts."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gencomp.errors import InputError

if TYPE_CHECKING:
    from slurm.jobs.ledger import Job

_LINES_OF_RANK = 20
_POLL_SECONDS = 0.5
_QUEUE_SECONDS = 5.0


def logs(
    directory: Path,
    /,
    job: str | None = None,
    follow: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Print what a job has printed in all of its attempts; for a run also rank 0's newest lines.

    Args:
        directory: A run or a sweep that was submitted, or an evaluation, RUN/evaluations/NAME.
        job: Name of the job, as gencomp slurm status shows it; by default the newest job that has
            printed something.
        follow: Go on printing until the job is over, or until Ctrl-C.
    """
    from slurm.jobs import ledger
    from slurm.kinds import open_jobs
    from slurm.sessions.session_jobs import SessionJobs

    opened = open_jobs(directory)
    jobs = [one for one in ledger.read(opened) if one.id and one.executor != "debug"]
    if job is not None:
        chosen = [one for one in jobs if one.name == job]
        if not chosen:
            known = ", ".join(one.name for one in jobs) or "none"
            raise InputError(f"{directory} has no job {job!r}; submitted were {known}")
    else:
        chosen = [one for one in jobs if one.log(opened.logs).exists()]
        if not chosen:
            raise InputError(
                f"no job of {directory} has begun; "
                f"`gencomp slurm status {shlex.quote(str(directory))}` says why"
            )
    newest = chosen[-1]
    files = [newest.log(opened.logs, "out"), newest.log(opened.logs, "err")]
    offsets = {path: _show(path) for path in files}
    if isinstance(opened, SessionJobs):
        for line in _of_rank_0(opened.subject):
            print(line)
    if follow:
        _follow(offsets, _life_of(newest))


def _show(path: Path) -> int:
    """Print a log below its name, and return its size in bytes."""
    if not path.exists():
        return 0
    print(f"==> {path} <==")
    return _print_from(path, 0)


def _of_rank_0(run: Path) -> Iterator[str]:
    """The newest lines of the log of rank 0, of which the oldest comes first."""
    from cluster.logs import json_lines, process_log

    path = process_log.of_rank(run, 0)
    rows = list(islice(json_lines.newest_first(path), _LINES_OF_RANK))
    if rows:
        yield f"==> {path} <=="
    for row in reversed(rows):
        yield process_log.readable(row)


def _life_of(job: Job) -> Callable[[], bool]:
    """A function that says whether a job still lives; it says so while no controller answers."""
    from slurm.jobs import ledger, queue

    watcher = queue.QueueWatcher()

    def lives() -> bool:
        if job.executor == "local":
            return ledger.process_lives(job)
        try:
            return bool(watcher.active(queue.look_up([job.id or ""])))
        except RuntimeError:
            return True

    return lives


def _follow(offsets: dict[Path, int], lives: Callable[[], bool]) -> None:
    """Print what is added to the files, until the job is over."""
    asked, alive = 0.0, True
    while alive:
        if time.monotonic() - asked > _QUEUE_SECONDS:
            asked, alive = time.monotonic(), lives()
        for path, offset in offsets.items():
            offsets[path] = offset + _print_from(path, offset)
        sys.stdout.flush()
        if alive:
            time.sleep(_POLL_SECONDS)


def _print_from(path: Path, offset: int) -> int:
    """Print a file from an offset on, and return the number of bytes that were printed."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    sys.stdout.write(data.decode(errors="replace"))
    return len(data)
