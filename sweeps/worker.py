"""One worker of a trial: the training loop, and what it is told about the trial and the attempt.

Nothing here imports torch before `train` is called, so that a process that only passes these values
on never does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cluster.locks import Lease


class Attempt(NamedTuple):
    """What all trials of one attempt at a sweep have in common.

    Attributes:
        objective: the objective of the sweep as a mapping.
        workers: the number of processes that share the batches of a trial.
        gpu: whether each of these processes has a GPU of its own.
        stop: a file whose existence asks the trials to save a checkpoint and leave.
        deadline: when the trials save and leave by themselves, in seconds since 1970.
    """

    objective: dict[str, Any]
    workers: int
    gpu: bool
    stop: Path
    deadline: float

    def should_stop(self) -> bool:
        return self.stop.exists() or time.time() >= self.deadline


class Task(NamedTuple):
    """What the workers of one trial have to do.

    Attributes:
        run: the directory of the trial's run.
        until: the step at which the trial ends, if its recipe has not ended before.
    """

    run: Path
    until: int | None


def train(
    task: Task,
    rank: int,
    attempt: Attempt,
    lease: Lease,
    report: Callable[[dict[str, float]], None],
) -> None:
    """Train a trial as one of its workers; the process group of several workers exists already.

    Args:
        task: the trial.
        rank: the rank of this worker.
        attempt: what all trials have in common.
        lease: holds the directory of the trial's run.
        report: given each evaluation; training goes on when it returns.
    """
    import torch

    from cluster.runs import open_run
    from cluster.training.worker_info import WorkerInfo
    from cluster.worker import Host
    from cluster.worker import train as loop
    from sweeps.warm_start import has_checkpoint

    # A driver that was killed could not note that the trial has come to its step.
    reached = task.until is not None and has_checkpoint(task.run, task.until)

    def reported(metrics: dict[str, float]) -> None:
        nonlocal reached
        reached = task.until is not None and metrics["step"] >= task.until
        report(metrics)

    host = Host(
        report=reported,
        should_stop=lambda: reached or attempt.should_stop(),
        may_write=lease.require,
    )
    # Ray shows each process its own GPUs only.
    device = torch.device("cuda", 0) if attempt.gpu else torch.device("cpu")
    loop(open_run(task.run), WorkerInfo(rank, attempt.workers, device), host)
