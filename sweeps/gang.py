"""A trial of several workers: a gang of actors in the trial's own placement group.

The trial's process takes no CPU. It starts the workers on the bundles that Ray Tune has reserved,
all of them or none, so that trials cannot wait for each other's workers. It hands rank 0's reports
to Tune, and fails when a worker does; Tune then starts the trial again. When Tune ends the trial,
it removes the placement group and with it all workers.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.locks import Lease
from cluster.logs import json_lines, process_log
from cluster.ray_train.failures import Failures
from gencomp.errors import InputError
from sweeps.trainable import Orders, Task, train

# A worker's death makes the others fail as well: so long to find out who was the first.
_SECONDS_TO_SETTLE = 10.0


class Worker:
    """One process of a gang. Methods run in threads, so reports are taken while it trains."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._reports: queue.Queue[dict[str, float]] = queue.Queue()
        self._handed_over = False

    def meeting(self) -> tuple[str, int] | None:
        """Where the gang meets, of rank 0. Asked of all, for all have much to import before."""
        from cluster import worker  # noqa: F401
        from cluster.ray_train import process_group

        return process_group.listen() if self._rank == 0 else None

    def train(self, task: Task, orders: Orders, lease: Lease, meeting: tuple[str, int]) -> None:
        """Train to the end, or until the trial shall stop."""
        from cluster.logs.watchdog import STALL_SECONDS
        from cluster.ray_train import process_group

        process_group.join(
            world_rank=self._rank,
            world=orders.workers,
            address=meeting[0],
            port=meeting[1],
            backend="nccl" if orders.gpu else "gloo",
            # A worker that hangs shall end by itself, with its stacks, before torch gives up.
            timeout=int(1.5 * STALL_SECONDS),
        )
        train(task, self._rank, orders, lease, self._report if self._rank == 0 else _say_nothing)
        process_group.leave()

    def next_report(self) -> dict[str, float]:
        """The next evaluation, as soon as there is one; asking says that the last one is dealt
        with, and only then training goes on."""
        if self._handed_over:
            self._reports.task_done()
        self._handed_over = True
        return self._reports.get()

    def _report(self, metrics: dict[str, float]) -> None:
        self._reports.put(metrics)
        self._reports.join()


def train_gang(
    task: Task, orders: Orders, lease: Lease, report: Callable[[dict[str, float]], None]
) -> None:
    """Train a trial's run with a gang of workers.

    Args:
        task: the trial.
        orders: how many workers, on what.
        lease: of the run's directory.
        report: given rank 0's evaluations; training goes on when it returns.

    Raises:
        InputError: the workers refused their input.
        RuntimeError: a worker died or failed.
    """
    workers = [_worker(rank, orders.gpu) for rank in range(orders.workers)]
    failures = Failures(task.run)
    training: list[Any] = []
    try:
        meeting, *_ = ray.get([one.meeting.remote() for one in workers])
        training += [one.train.remote(task, orders, lease, meeting) for one in workers]
        _watch(training, workers[0], report)
    except RayError as error:
        raise _reason(task.run, failures, _errors(training) or {0: error}) from None
    finally:
        for one in workers:
            ray.kill(one)


def _worker(rank: int, gpu: bool) -> Any:
    """A worker on its bundle; the first one is the trial's process."""
    bundle = PlacementGroupSchedulingStrategy(
        ray.util.get_current_placement_group(), placement_group_bundle_index=1 + rank
    )
    actor = ray.remote(num_cpus=1, num_gpus=int(gpu), max_concurrency=2)(Worker)
    return actor.options(scheduling_strategy=bundle).remote(rank)


def _watch(training: Sequence[Any], first: Any, report: Callable[[dict[str, float]], None]) -> None:
    """Until all have trained; raises what the first one to fail raises."""
    open_ones, arriving = list(training), first.next_report.remote()
    while open_ones:
        (done,), _ = ray.wait([*open_ones, arriving], num_returns=1)
        if done in open_ones:
            open_ones.remove(done)
            ray.get(done)
        else:
            report(ray.get(done))
            arriving = first.next_report.remote()


def _errors(training: Sequence[Any]) -> dict[int, Exception]:
    """What each worker that has ended raised, by rank, when all had the time to notice."""
    if not training:
        return {}
    ended, _ = ray.wait(training, num_returns=len(training), timeout=_SECONDS_TO_SETTLE)
    errors: dict[int, Exception] = {}
    for rank, one in enumerate(training):
        if one in ended:
            try:
                ray.get(one)
            except RayError as error:
                errors[rank] = getattr(error, "cause", error)
    return errors


def _reason(run: Path, failures: Failures, errors: dict[int, Exception]) -> Exception:
    """Why a gang has failed, as one error; it is in the driver's log of the run as well."""
    for error in errors.values():
        if isinstance(error, InputError):
            return InputError(str(error))
    # The others only complain that somebody has gone.
    died = {rank: error for rank, error in errors.items() if isinstance(error, RayActorError)}
    failures.after_exception(None, died or errors)
    return RuntimeError(json_lines.read(process_log.of_driver(run))[-1]["message"])


def _say_nothing(metrics: Mapping[str, float]) -> None:
    pass
