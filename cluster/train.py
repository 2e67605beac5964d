"""A run is trained to its end: it is held, its checkpoints are arranged, its workers are run.

One worker on this machine is a child process (`cluster.one_process.fit`); several workers, and
workers on a cluster, are run by Ray Train (`cluster.ray_train.fit`). Both run the same loop in the
same run directory with the same results, and each goes on where the other has stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from cluster.checkpoints import mirror, store
from cluster.driver import Training
from cluster.files import locked
from cluster.logs import process_log
from cluster.one_process import fit as one_process
from cluster.one_process.process import WorkerProcess
from cluster.runs import Run
from cluster.stop_signals import stop_requests
from cluster.supervision import Supervision
from cluster.tracking import keeping
from cluster.tracking.choice import Name as TrackerName
from cluster.worker import require_shares
from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe

log = logging.getLogger(__name__)


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
    early: WorkerProcess | None = None,
    tracker: TrackerName | None = None,
) -> bool:
    """Train a run to its end.

    Args:
        run: an entered run; training goes on from its newest checkpoint.
        supervision: the number of workers, and what happens when they fail.
        on_row: a function that is called with every new row of the metrics log.
        on_log: a function that is called with every new line of the driver's log and of rank 0's.
        early: a process for the only worker, if there is one already (see
            `cluster.supervision.early_worker`).
        tracker: the experiment tracker that gets what is logged, if there is one.

    Returns:
        True if training is complete; False if SIGINT or SIGTERM stopped it at a checkpoint.

    Raises:
        InputError: another process trains the run, the number of workers does not fit the batch or
            this machine, no checkpoint is whole, or the workers refused their input.
        SavingError: a checkpoint could not be written or copied.
        RuntimeError: the workers failed more than `max_failures` times.
        KeyboardInterrupt: a second signal has come.
    """
    require_sensible(supervision, run, run.recipe())
    if supervision.gpu and not supervision.needs_ray() and not torch.cuda.is_available():
        raise InputError("--gpu needs a GPU that torch can use, and this machine has none")
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
            training = Training(run, supervision, lease, relay, on_row)
            # A request to stop outlives every worker, so that no other one is started after it.
            with (
                keeping.tracked(run, tracker, lease.require),
                stop_requests(run.stop_request),
            ):
                if supervision.needs_ray():
                    from cluster.ray_train.fit import until_ended

                    return until_ended(training)
                return one_process.until_ended(training, early)
