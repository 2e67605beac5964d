"""A trial of several workers: a gang of actors in the trial's own placement group.

The trial's own process takes no CPU and never imports torch. It starts the workers on the bundles
that Ray Tune has reserved, all of them or none, so that trials cannot wait for workers of each
other. It hands the reports of rank 0 to Tune, and fails when a worker does; Tune then starts the
trial again. When Tune ends the trial, it removes the placement group and with it all workers.

Beside Ray's public interface this file depends on one habit of Tune: Tune runs the trial's own
process in the first bundle of the placement group, and leaves the other bundles to that process.
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
from cluster.ray_train.nodes import Place
from gencomp.errors import InputError
from sweeps.worker import Attempt, Task, train

# The death of a worker makes the others fail as well. For so long the gang waits for their errors,
# to find out which worker was the first.
_SECONDS_TO_SETTLE = 10.0


class Worker:
    """One process of a gang.

    Its methods run in two threads, so that reports can be taken while it trains.
    """

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._reports: queue.Queue[dict[str, float]] = queue.Queue()
        self._handed_over = False

    def rendezvous(self) -> Place | None:
        """The place at which the workers of the gang find each other, if this one is rank 0.

        All workers are asked, because all have much to import before they can train.
        """
        from cluster import worker  # noqa: F401
        from cluster.ray_train import process_group

        return process_group.listen() if self._rank == 0 else None

    def train(self, task: Task, attempt: Attempt, lease: Lease, rendezvous: Place) -> None:
        """Train to the end, or until the trial shall stop."""
        from cluster.logs.watchdog import STALL_SECONDS
        from cluster.ray_train import process_group

        process_group.join(
            world_rank=self._rank,
            world=attempt.workers,
            first=rendezvous,
            backend="nccl" if attempt.gpu else "gloo",
            # A worker that hangs shall end by itself, with its stacks, before torch gives up.
            timeout=int(1.5 * STALL_SECONDS),
        )
        train(task, self._rank, attempt, lease, self._report if self._rank == 0 else _drop)
        process_group.leave()

    def next_report(self) -> dict[str, float]:
        """The next evaluation, as soon as there is one.

        Asking for it says that the caller is done with the one before; only then training goes on.
        """
        if self._handed_over:
            self._reports.task_done()
        self._handed_over = True
        return self._reports.get()

    def _report(self, metrics: dict[str, float]) -> None:
        self._reports.put(metrics)
        self._reports.join()


def train_gang(
    task: Task, attempt: Attempt, lease: Lease, report: Callable[[dict[str, float]], None]
) -> None:
    """Train a trial's run with a gang of workers.

    Args:
        task: the trial.
        attempt: the number of workers, and what else all trials have in common.
        lease: holds the directory of the trial's run.
        report: given the evaluations of rank 0; training goes on when it returns.

    Raises:
        InputError: the workers refused their input.
        RuntimeError: a worker died or failed.
    """
    workers = [_worker(rank, attempt.gpu) for rank in range(attempt.workers)]
    failures = Failures(task.run)
    training: list[Any] = []
    try:
        rendezvous, *_ = ray.get([one.rendezvous.remote() for one in workers])
        training += [one.train.remote(task, attempt, lease, rendezvous) for one in workers]
        _watch(training, workers[0], report)
    except RayError as error:
        raise _reason(task.run, failures, _errors(training) or {0: error}) from None
    finally:
        for one in workers:
            ray.kill(one)


def _worker(rank: int, gpu: bool) -> Any:
    """A worker on its bundle; the first bundle is taken by the trial's own process."""
    bundle = PlacementGroupSchedulingStrategy(
        ray.util.get_current_placement_group(), placement_group_bundle_index=1 + rank
    )
    actor = ray.remote(num_cpus=1, num_gpus=int(gpu), max_concurrency=2)(Worker)
    return actor.options(scheduling_strategy=bundle).remote(rank)


def _watch(training: Sequence[Any], first: Any, report: Callable[[dict[str, float]], None]) -> None:
    """Pass reports on until all workers have trained; raises the error of the first that fails."""
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
    """The errors of the workers that have failed, by rank, once all had the time to notice."""
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
    """The reason why a gang has failed, as one error, which the driver's log of the run has too."""
    for error in errors.values():
        if isinstance(error, InputError):
            return InputError(str(error))
    # The other workers only complain that one has gone.
    died = {rank: error for rank, error in errors.items() if isinstance(error, RayActorError)}
    failures.after_exception(None, died or errors)
    return RuntimeError(json_lines.read(process_log.of_driver(run))[-1]["message"])


def _drop(metrics: Mapping[str, float]) -> None:
    pass
