"""A trial at work: the training loop in the trial's own process, or in a gang of its workers.

Nothing here imports torch before a worker needs it: a gang's own process never does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cluster.files import locked
from cluster.locks import Lease
from gencomp.errors import InputError
from sweeps.sweep_file import Objective

# How long a process of an earlier attempt may take to die.
_SECONDS_TO_DIE = 60.0


class Orders(NamedTuple):
    """What every trial of an attempt is told.

    Attributes:
        objective: as a mapping.
        workers: processes that share the trial's batches.
        gpu: each has one of its own.
        stop: a file whose existence asks the trial to save and leave.
        deadline: when it does so by itself, in seconds since 1970.
    """

    objective: dict[str, Any]
    workers: int
    gpu: bool
    stop: Path
    deadline: float

    def should_stop(self) -> bool:
        return self.stop.exists() or time.time() >= self.deadline


def resources(workers: int, gpu: bool) -> Any:
    """What Ray Tune reserves for a trial, all of it or nothing."""
    from ray import tune

    unit = _unit(gpu)
    if workers == 1:
        return tune.PlacementGroupFactory([unit])
    # The process that watches over a gang takes no CPU: it stays beside the head.
    head = {"node:__internal_head__": 0.001}
    return tune.PlacementGroupFactory([head] + [unit] * workers, strategy="PACK")


def capacity(nodes: list[dict[str, Any]], workers: int, gpu: bool) -> int:
    """How many trials a cluster holds at once.

    A trial is made of equal bundles that may lie on any nodes, so this many always fit together:
    none ever waits for a part of what another one holds.

    Args:
        nodes: as `ray.nodes()` describes them.
        workers, gpu: of each trial.

    Raises:
        InputError: not even one fits.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    units = sum(min(int(node.get(kind, 0)) for kind in _unit(gpu)) for node in alive)
    if units < workers:
        what = "GPUs (each with a CPU)" if gpu else "CPUs"
        mend = "fewer workers, or no gpu" if gpu else "fewer workers"
        raise InputError(
            f"each trial wants {workers} {what}, but the cluster has {units}: ask for {mend}"
        )
    return units // workers


class Task(NamedTuple):
    """A trial's run, as its processes are told.

    Attributes:
        until: the trial ends at this step, if its recipe has not ended before.
    """

    run: Path
    until: int | None


def run_trial(config: dict[str, Any], orders: Orders) -> None:
    """What Ray Tune runs: train the trial's run to its end, or until it shall stop."""
    if orders.should_stop():
        return
    task = Task(Path(config["trial"]["path"]), config["trial"]["until"])
    with _held(task.run) as lease:
        if orders.workers == 1:
            train(task, 0, orders, lease, reporter(orders))
        else:
            from sweeps.gang import train_gang

            train_gang(task, orders, lease, reporter(orders))


def reporter(orders: Orders) -> Callable[[dict[str, float]], None]:
    """Hands evaluations to Ray Tune; returns when Tune wants the trial to go on."""
    from ray import tune

    goal = Objective(**orders.objective)

    def report(metrics: dict[str, float]) -> None:
        goal.require_known(metrics)
        tune.report({**{k: float(v) for k, v in metrics.items()}, "score": goal.score(metrics)})

    return report


def train(
    task: Task,
    rank: int,
    orders: Orders,
    lease: Lease,
    report: Callable[[dict[str, float]], None],
) -> None:
    """The training loop as one of a trial's workers, whose process group is there already."""
    import torch

    from cluster.runs import open_run
    from cluster.training.worker_info import Seat
    from cluster.worker import Host
    from cluster.worker import train as loop
    from sweeps.warm_start import has_reached

    # There already, when a killed driver could not note it.
    reached = task.until is not None and has_reached(task.run, task.until)

    def reported(metrics: dict[str, float]) -> None:
        nonlocal reached
        reached = task.until is not None and metrics["step"] >= task.until
        report(metrics)

    host = Host(
        report=reported,
        should_stop=lambda: reached or orders.should_stop(),
        may_write=lease.require,
    )
    # Ray shows each process its own GPUs only.
    device = torch.device("cuda", 0) if orders.gpu else torch.device("cpu")
    loop(open_run(task.run), Seat(rank, orders.workers, device), host)


@contextmanager
def _held(run: Path) -> Iterator[Lease]:
    """Hold the run's directory, as soon as the process of an earlier attempt has died."""
    end = time.monotonic() + _SECONDS_TO_DIE
    with ExitStack() as stack:
        while True:
            try:
                lease = stack.enter_context(locked(run))
                break
            except InputError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)
        yield lease


def _unit(gpu: bool) -> dict[str, float]:
    """What a worker takes."""
    return {"CPU": 1, "GPU": 1} if gpu else {"CPU": 1}
