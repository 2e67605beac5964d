"""The training loop under Ray Train is started, stopped gracefully and resumed here.

Ray supervises processes: its controller starts the workers, forms their process group, and starts
them again when one dies. Ray is never given our checkpoints: a worker that starts looks into the
run directory and goes on from the newest whole checkpoint. So it does not matter whether the
workers, their controller or the driver died.

Ray reads its environment when it is imported, so it is imported only after `ray_runtime` has set
that up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster import final_errors, ray_runtime
from cluster.driver import Training
from cluster.locks import Lease
from cluster.logs import json_lines, process_log
from cluster.runs import Run
from cluster.supervision import Supervision
from gencomp.errors import InputError

log = logging.getLogger(__name__)

# This limits how often workers are added, since each time they restart, for some ten seconds.
_SECONDS_BETWEEN_GROWTHS = 60.0
# So long workers that do not train yet may take to leave; Ray waits for some without a limit.
_SECONDS_TO_LEAVE = 15.0


def until_ended(training: Training) -> bool:
    """Train, and begin again each time that Ray's controller dies, on a new or joined cluster.

    Returns:
        True if training is complete; False if it was stopped at a checkpoint.

    Raises:
        InputError: the number of workers does not fit this machine, or they refused their input.
        SavingError: a disk is full.
        RuntimeError: the workers failed more than `max_failures` times.
    """
    supervision = training.supervision
    cpus = None if supervision.gpu else max(supervision.workers[0], ray_runtime.usable_cpus())
    deaths = 0
    while True:
        with ray_runtime.cluster(cpus=cpus):
            fitting = replace(supervision, workers=_fitting_workers(supervision))
            try:
                return _supervise(replace(training, supervision=fitting))
            except _ControllerDied as died:
                deaths += 1
                if deaths > supervision.max_failures:
                    raise RuntimeError(f"training failed: {died}") from died
                details = process_log.details(event="workers_failed", ranks=[])
                if training.run.stop_request.exists():
                    log.warning("%s, as training was about to stop", died, extra=details)
                    return False
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


def _supervise(training: Training) -> bool:
    """Run Ray Train on a thread; rows, logs and the lock are dealt with on this one."""
    outcome: list[Any] = []
    thread = threading.Thread(target=_fit_in_thread, args=(training, outcome), daemon=True)

    def start() -> Callable[[], bool]:
        patience = _Patience(training.run)
        thread.start()
        return lambda: not thread.is_alive() or patience.has_ended()

    training.watch(start)
    if not outcome:
        log.warning("the workers did not start in time to be asked to leave, and are ended")
        return False
    if isinstance(outcome[0], BaseException):
        return _stopped_waiting_or_raise(outcome[0])
    return bool(outcome[0])


class _Patience:
    """Ends a while after a request to stop, unless the workers train and so can save."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._ranks = process_log.of_rank(run.path, 0)
        self._controller = process_log.of_driver(run.path)
        self._read = {path: json_lines.end(path) for path in (self._ranks, self._controller)}
        self._train = False
        self._idle_since: float | None = None

    def has_ended(self) -> bool:
        """Whether workers that do not train were asked to leave long ago."""
        of_ranks, of_controller = self._events(self._ranks), self._events(self._controller)
        begun = self._train or "start" in of_ranks
        self._train = begun and "end" not in of_ranks and "workers_failed" not in of_controller
        if self._train or not self._run.stop_request.exists():
            self._idle_since = None
            return False
        now = time.monotonic()
        self._idle_since = self._idle_since or now
        return now - self._idle_since > _SECONDS_TO_LEAVE

    def _events(self, path: Path) -> set[str]:
        """What a log tells since the last time."""
        rows, self._read[path] = json_lines.follow(path, self._read[path])
        return {str(row.get("event")) for row in rows}


def _fit_in_thread(training: Training, outcome: list[Any]) -> None:
    # Ray Train installs its own SIGINT handler only on the main thread, where ours must stay.
    try:
        outcome.append(_fit_at_each_size(training.run, training.supervision, training.lease))
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
    with final_errors.told(run.refusal):
        worker = WorkerInfo(context.get_world_rank(), context.get_world_size(), get_device())
        return {"finished": train(run, worker, host).finished}


def _stopped_waiting_or_raise(error: BaseException) -> bool:
    """False if an error of Ray Train means that training was stopped while it waited for room.

    Raises:
        _ControllerDied: the controller died, alone or with a worker that it was starting.
        InputError: the workers' hosts cannot reach each other.
        RuntimeError: the workers failed; the message is one sentence with the last words of each.
    """
    from ray.exceptions import RayActorError
    from ray.train import ControllerError

    from cluster.ray_train.process_group import UnreachableWorkers
    from cluster.ray_train.scaling import StoppedWaiting

    if isinstance(error, RayActorError):
        raise _ControllerDied("the controller of the workers died") from error
    if isinstance(error, ControllerError):
        reason = error.controller_failure
        if isinstance(reason, StoppedWaiting):
            return False
        if isinstance(reason, UnreachableWorkers):
            raise InputError(str(reason)) from error
        if isinstance(reason, RayActorError):
            raise _ControllerDied("a worker died while it was started") from error
    failures = getattr(error, "worker_failures", None) or {}
    reasons = "; ".join(f"worker {rank}: {str(f).splitlines()[-1]}" for rank, f in failures.items())
    raise RuntimeError(f"training failed: {reasons or error}") from error
