"""A run is trained by one process, which is started again when it has failed.

The worker logs what it does into the run (`cluster.logs.process_log`), and its exit code says how
it ended. A worker that is started again goes on from the newest checkpoint.
"""

from __future__ import annotations

import logging
import platform
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from cluster.driver import Training
from cluster.logs import json_lines, process_log
from cluster.one_process.process import End, WorkerProcess
from cluster.one_process.pulse import Listener
from gencomp.exit_codes import DONE, STOPPED

log = logging.getLogger(__name__)


def until_ended(training: Training, early: WorkerProcess | None = None) -> bool:
    """Train, and start the worker again when it has failed.

    Args:
        training: the run, held by this process.
        early: a process for the worker, if there is one already.

    Returns:
        True if training is complete; False if it was stopped at a checkpoint.

    Raises:
        InputError: the worker refused its input.
        SavingError: a disk is full.
        RuntimeError: the worker failed more than `max_failures` times.
    """
    worker_log = process_log.of_rank(training.run.path, 0)
    failures = 0
    while True:
        logged = json_lines.end(worker_log)
        with early or WorkerProcess() as worker:
            early = None
            listener = worker.listen(training.supervision.stall_seconds)
            training.watch(_start(worker, training, listener))
            end = worker.end()
        if end.code in (DONE, STOPPED):
            return end.code == DONE
        failures += 1
        rows, _ = json_lines.follow(worker_log, logged)
        reason = _reason(worker.pid, end, rows, listener)
        details = process_log.details(event="workers_failed", ranks=[0], said=end.said)
        log.warning("%s", reason, extra=details)
        if training.run.stop_request.exists():
            return False
        if failures > training.supervision.max_failures:
            raise RuntimeError(f"training failed: {reason}")


def _start(
    worker: WorkerProcess, training: Training, listener: Listener
) -> Callable[[], Callable[[], bool]]:
    """The function that tells the worker its task, and gives the one that knows of its end."""

    def has_ended() -> bool:
        if listener.is_silent():
            worker.abort()
            return True
        return worker.has_ended()

    def start() -> Callable[[], bool]:
        worker.begin(_task(training))
        return has_ended

    return start


def _task(training: Training) -> dict[str, Any]:
    """What `cluster.one_process.__main__` has to do, as values of JSON."""
    lease = training.lease
    return {
        "run": str(training.run.path.resolve()),
        "lease": {**asdict(lease), "directory": str(lease.directory)},
        "stall_seconds": training.supervision.stall_seconds,
        "gpu": training.supervision.gpu,
    }


def _reason(pid: int, end: End, rows: Sequence[process_log.Row], listener: Listener) -> str:
    """The reason for a worker's failure in one sentence, from its log or the end of its process."""
    who = f"rank 0 (process {pid} on {platform.node()})"
    if listener.gave_up:
        return (
            f"{who} gave no sign of life for {listener.limit:g} s, so native code holds its"
            " interpreter; the driver's log has the stacks of its threads"
        )
    for row in reversed(rows):
        if row.get("event") == "stalled":
            return str(row["message"])
        if row.get("event") == "failed":
            return f"{who}: {row['message']}"
    if end.code < 0:
        return f"{who} died: it was killed by {signal.Signals(-end.code).name}"
    last = "".join(f": {line}" for line in end.said.splitlines()[-1:])
    return f"{who} ended with exit code {end.code}{last}"
