"""The training loop under Ray Train is started, watched, stopped gracefully and resumed here.

Ray supervises processes: its controller starts the workers, forms their process group, and starts
them again when one dies. Ray is never given our checkpoints: a worker that starts looks into the
run directory and goes on from the newest whole checkpoint. So it does not matter whether the
workers, their controller or the driver died.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster import ray_runtime
from cluster.checkpoints import mirror, store
from cluster.files import locked
from cluster.locks import Lease
from cluster.logs import json_lines, process_log
from cluster.logs.watchdog import STALL_SECONDS
from cluster.ray_train import final_errors
from cluster.runs import Run
from cluster.stop_signals import stop_requests
from cluster.worker import require_shares
from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
# This limits how often workers are added, since each time they restart, for some ten seconds.
_SECONDS_BETWEEN_GROWTHS = 60.0


@dataclass(frozen=True)
class Supervision:
    """How the workers of a run are kept going. None of this changes what they compute.

    Attributes:
        workers: the fewest and the most processes that share each global batch; as many work as the
            cluster has room for (see `cluster.ray_train.scaling`).
        gpu: whether every worker gets a GPU of its own, rather than a CPU.
        max_failures: the number of times that the workers are started again after one has died.
        stall_seconds: the time without progress after which a worker is ended and counts as dead.
        copy_to: the place to which every whole checkpoint is copied, if there is one (see
            `cluster.checkpoints.mirror`).
    """

    workers: tuple[int, int] = (1, 1)
    gpu: bool = False
    max_failures: int = 3
    stall_seconds: float = STALL_SECONDS
    copy_to: str | None = None


def require_sensible(supervision: Supervision, run: Run, recipe: BaseRecipe) -> None:
    """Raise `InputError` for settings that `fit` would refuse on any machine.

    Args:
        supervision: the settings.
        run: the run, which need not exist yet.
        recipe: the run's recipe.
    """
    for workers in supervision.workers:
        require_shares(recipe, workers)
    if supervision.stall_seconds <= 0:
        raise InputError(f"--stall-seconds {supervision.stall_seconds:g} must be more than 0")
    if supervision.copy_to is not None:
        mirror.place_of(run, supervision.copy_to)


def fit(
    run: Run,
    supervision: Supervision,
    on_row: Callable[[dict[str, Any]], None] = lambda row: None,
    on_log: Callable[[process_log.Row], None] = lambda row: None,
) -> bool:
    """Train a run to its end with Ray Train.

    Args:
        run: an entered run; training goes on from its newest checkpoint.
        supervision: the number of workers, and what happens when they fail.
        on_row: a function that is called with every new row of the metrics log.
        on_log: a function that is called with every new line of the driver's log and of rank 0's.

    Returns:
        True if training is complete; False if SIGINT or SIGTERM stopped it at a checkpoint.

    Raises:
        InputError: another process trains the run, the number of workers does not fit the batch or
            this machine, no checkpoint is whole, or the workers refused their input.
        SavingError: a checkpoint could not be written or copied.
        RuntimeError: the workers failed more than `max_failures` times.
    """
    require_sensible(supervision, run, run.recipe())
    # The workers choose the checkpoint; here the user learns of damaged ones before they start.
    if supervision.copy_to is None:
        store.newest(run.checkpoints)
    with locked(run.path) as lease:
        fetched = mirror.arrange(run, supervision.copy_to)
        if supervision.copy_to is not None:  # a fetched copy may have replaced a damaged checkpoint
            store.newest(run.checkpoints)
        with process_log.driving(run.path, lease.predecessor, on_log) as relay:
            if fetched is not None:
                log.info("fetched the checkpoint of step %d from %s", fetched, supervision.copy_to)
            return _until_ended(run, supervision, lease, relay, on_row)


def _until_ended(
    run: Run,
    supervision: Supervision,
    lease: Lease,
    relay: Callable[[], None],
    on_row: Callable[[dict[str, Any]], None],
) -> bool:
    """Train, and begin again each time that Ray's controller dies, on a new or joined cluster."""
    cpus = None if supervision.gpu else max(supervision.workers[0], ray_runtime.usable_cpus())
    deaths = 0
    while True:
        with ray_runtime.cluster(cpus=cpus):
            fitting = replace(supervision, workers=_fitting_workers(supervision))
            try:
                return _supervise(run, fitting, lease, relay, on_row)
            except _ControllerDied as died:
                deaths += 1
                if deaths > supervision.max_failures:
                    raise RuntimeError(f"training failed: {died}") from died
                details = process_log.details(event="workers_failed", ranks=[])
                log.warning("%s; training is started again", died, extra=details)
        # When our connection closes, Ray ends everything that the controller has left.


def _fitting_workers(supervision: Supervision) -> tuple[int, int]:
    """The fewest and most workers; a cluster that never grows limits them by its room."""
    fewest, most = supervision.workers
    if not ray_runtime.is_complete():
        return fewest, most
    import ray

    kind = "GPU" if supervision.gpu else "CPU"
    there = int(ray.cluster_resources().get(kind, 0))
    if there < fewest:
        needs = f"--workers {fewest} needs {fewest} {kind}s"
        if ray_runtime.address() is None:
            mend = "start fewer, or set RAY_ADDRESS to a cluster that has them"
            raise InputError(f"{needs}, and this machine has {there}: {mend}")
        raise InputError(f"{needs}, and this allocation has {there}: start fewer, or ask for more")
    return fewest, min(most, there)


class _ControllerDied(RuntimeError):
    """Raised where Ray's controller of the workers is gone, which would start them again."""


def _supervise(
    run: Run,
    supervision: Supervision,
    lease: Lease,
    relay: Callable[[], None],
    on_row: Callable[[dict[str, Any]], None],
) -> bool:
    """Run Ray Train on a thread; rows, logs, the lock and signals are dealt with on this one."""
    final_errors.reserve(run.refusal)
    outcome: list[Any] = []
    thread = threading.Thread(
        target=_fit_in_thread, args=(run, supervision, lease, outcome), daemon=True
    )

    def ended() -> bool:
        relay()
        lease.require()
        return not thread.is_alive()

    with stop_requests(run.stop_request):
        thread.start()
        for row in _rows_until(run.metrics, ended):
            on_row(row)
        thread.join()
    refused = final_errors.said(run.refusal)
    run.refusal.unlink(missing_ok=True)
    if refused is not None:
        raise refused.error()
    if isinstance(outcome[0], BaseException):
        return _stopped_waiting_or_raise(outcome[0])
    return bool(outcome[0])


def _fit_in_thread(run: Run, supervision: Supervision, lease: Lease, outcome: list[Any]) -> None:
    # Ray Train installs its own SIGINT handler only on the main thread, where ours must stay.
    try:
        outcome.append(_fit_at_each_size(run, supervision, lease))
    except BaseException as error:  # the main thread raises it later
        outcome.append(error)


def _fit_at_each_size(run: Run, supervision: Supervision, lease: Lease) -> bool:
    """Train, and start the workers again each time they have left because more have room."""
    grow = _grow_request(run)
    quiet_until = 0.0
    while True:
        grow.unlink(missing_ok=True)
        trainer = _trainer(run, supervision, lease, quiet_until)
        finished = bool(trainer.fit().return_value["finished"])
        if finished or run.stop_request.exists() or not grow.exists():
            return finished
        quiet_until = time.time() + _SECONDS_BETWEEN_GROWTHS


def _trainer(run: Run, supervision: Supervision, lease: Lease, quiet_until: float) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    from cluster.ray_train.failures import Failures
    from cluster.ray_train.process_group import OneAddressConfig
    from cluster.ray_train.scaling import Signals, Trainer

    path = run.path.resolve()
    stall_seconds, max_failures = supervision.stall_seconds, supervision.max_failures
    return Trainer(
        _worker,
        run=path,
        signals=Signals(run.stop_request.resolve(), _grow_request(run).resolve(), quiet_until),
        train_loop_config={"run": str(path), "lease": lease, "stall_seconds": stall_seconds},
        scaling_config=ScalingConfig(num_workers=supervision.workers, use_gpu=supervision.gpu),
        # Workers that hang end by themselves, with their stacks, before torch gives up.
        torch_config=OneAddressConfig(timeout_s=int(max(600, 1.5 * stall_seconds))),
        run_config=RunConfig(
            storage_path=str(path),
            name="ray",
            callbacks=[Failures(path)],
            # The limit for the controller also counts workers that die while they are started.
            failure_config=FailureConfig(
                max_failures=max_failures, controller_failure_limit=max(3, max_failures)
            ),
            worker_runtime_env={"env_vars": ray_runtime.WORKER_ENVIRONMENT},
        ),
    )


def _grow_request(run: Run) -> Path:
    """A file whose existence asks the workers to save and leave, so that more can be started."""
    return run.path / "grow"


def _worker(config: dict[str, Any]) -> dict[str, Any]:
    """Train as one worker. Ray Train calls this function in every worker."""
    import ray.train
    from ray.train.torch import get_device

    from cluster.runs import open_run
    from cluster.training.worker_info import WorkerInfo
    from cluster.worker import Host, train

    context = ray.train.get_context()
    run = open_run(config["run"])
    grow = _grow_request(run)
    if final_errors.said(run.refusal) is not None:
        # Workers that are started again leave at once: the input is still bad, or the disk full.
        return {"finished": False}
    host = Host(
        # Ray insists on plain numbers and drops metrics without a checkpoint; ours are in the log.
        report=lambda metrics: ray.train.report({k: float(v) for k, v in metrics.items()}),
        should_stop=lambda: run.stop_request.exists() or grow.exists(),
        may_write=config["lease"].require,
        stall_seconds=config["stall_seconds"],
    )
    try:
        worker = WorkerInfo(context.get_world_rank(), context.get_world_size(), get_device())
        return {"finished": train(run, worker, host).finished}
    except (ValueError, OSError) as error:
        if (refusal := final_errors.refusal(error, run.path)) is not None:
            with suppress(OSError):  # the run may have become read-only
                final_errors.say(run.refusal, refusal)
        raise


def _rows_until(path: Path, ended: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """The new rows of a metrics log while the workers write it."""
    offset = json_lines.end(path)
    while True:
        last_round = ended()
        rows, offset = json_lines.follow(path, offset)
        yield from rows
        if last_round:
            return
        time.sleep(_POLL_SECONDS)


def _stopped_waiting_or_raise(error: BaseException) -> bool:
    """False if an error of Ray Train means that training was stopped while it waited for room.

    Raises:
        _ControllerDied: the controller died, alone or with a worker that it was starting.
        RuntimeError: the workers failed; the message is one sentence with the last words of each.
    """
    from ray.exceptions import RayActorError
    from ray.train import ControllerError

    from cluster.ray_train.scaling import StoppedWaiting

    if isinstance(error, RayActorError):
        raise _ControllerDied("the controller of the workers died") from error
    if isinstance(error, ControllerError):
        reason = error.controller_failure
        if isinstance(reason, StoppedWaiting):
            return False
        if isinstance(reason, RayActorError):
            raise _ControllerDied("a worker died while it was started") from error
    failures = getattr(error, "worker_failures", None) or {}
    reasons = "; ".join(f"worker {rank}: {str(f).splitlines()[-1]}" for rank, f in failures.items())
    raise RuntimeError(f"training failed: {reasons or error}") from error
