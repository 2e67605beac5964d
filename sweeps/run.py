"""Run a sweep's open trials with Ray Tune.

Tune schedules and stops trials. The directories of the trials say what is done and what is not, so
Tune's own state is thrown away after every attempt. Ray reads its environment when it is imported,
so it is imported only after `ray_runtime` has set that up.

Beside Ray's public interface this file depends on two habits of Tune: it puts its own signal
handlers in place if it runs on the main thread and only then, and it hands on an error of a
callback without naming the cause (see `_full_disk`).
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from cluster import ray_runtime, workplace
from cluster.checkpoints.writer import SavingError, has_no_room, mend_of
from cluster.stop_signals import stop_requests
from sweeps import resources
from sweeps.results import ResultsTable
from sweeps.sweep_file import Sweep
from sweeps.time_budget import TimeBudget
from sweeps.trainable import run_trial
from sweeps.trial import Trial
from sweeps.trial_queue import TrialQueue
from sweeps.worker import Attempt

OnEvent = Callable[[Trial, str, dict[str, Any]], None]
# The trials' own processes have their places beside Ray's head, which has room for this many (see
# `resources.of_trial`).
_MOST = 1000
# An attempt ends because nothing is left to run, because the budget leaves no room for what is
# left, or because a signal came.
Ending = Literal["complete", "budget", "stopped"]


def run(sweep: Sweep, queue: TrialQueue, directory: Path, on_event: OnEvent) -> Ending:
    """Run the trials that are neither finished nor stopped early, and those that a search proposes.

    The table of results is written soon after a trial has started or ended, and at the end.

    Args:
        sweep: the sweep with its scheduler, its objective and its budget.
        queue: the trials of the sweep.
        directory: the directory of the sweep, which the caller holds as `queue.may_write` knows.
        on_event: called with a trial, with what happened and with its newest metrics or its error.
            What happened is "started", "running" (it was evaluated), "finished", "stopped" (early),
            "failed", or "again" (it failed and is started again).

    Raises:
        InputError: a trial wants more than the cluster has, or a search proposed an invalid recipe.
        RuntimeError: Tune itself failed.
        LockLost: another process has taken over the sweep.
    """
    table = ResultsTable(queue.trials, sweep.objective, directory, queue.may_write)
    budget = TimeBudget(directory, sweep.budget.time, queue.may_write)
    if not queue.has_next() or budget.is_used_up():
        return "complete" if queue.is_complete() else "budget"

    def told(trial: Trial, event: str, values: dict[str, Any]) -> None:
        if event != "running":
            table.note(trial)
        on_event(trial, event, values)

    cpus = None if sweep.gpu else max(sweep.workers, ray_runtime.usable_cpus())
    flag = directory / "stop"
    with ray_runtime.cluster(cpus=cpus), stop_requests(flag):
        try:
            _run(sweep, queue, flag, budget, table, told)
        except BaseException:
            with suppress(OSError):  # the error that came first is the one to raise
                budget.save()
                table.note(*queue.trials)
                table.write()
            raise
        budget.save()
        table.note(*queue.trials)
        table.write()
        if queue.is_complete():
            return "complete"
        return "stopped" if flag.exists() else "budget"


@contextmanager
def room_needed(directory: Path) -> Iterator[None]:
    """Turns the error of a full disk into a `SavingError` of one sentence.

    Args:
        directory: the directory of the sweep that is written inside this context.
    """
    try:
        yield
    except Exception as error:
        if hasattr(error, "exit_code") or (full := _full_disk(error)) is None:
            raise
        raise SavingError(
            f"{full.filename or directory} could not be written: {full.strerror}; {mend_of(full)},"
            " and the same command goes on"
        ) from error


def _full_disk(error: BaseException | None) -> OSError | None:
    """The error of a full disk that an error comes from, or None where it comes from another."""
    while error is not None and not (isinstance(error, OSError) and has_no_room(error)):
        error = error.__cause__ or error.__context__  # Tune does not name the cause
    return error


def _run(
    sweep: Sweep,
    queue: TrialQueue,
    flag: Path,
    budget: TimeBudget,
    table: ResultsTable,
    on_event: OnEvent,
) -> None:
    """Run one attempt on the cluster that this process is connected to."""
    import ray

    from sweeps.ray_tune import QueueSearcher

    most = min(_MOST, resources.capacity(ray.nodes(), sweep.workers, sweep.gpu))
    at_once = min(most, sweep.concurrent or most)
    attempt = Attempt(
        sweep.objective.model_dump(), sweep.workers, sweep.gpu, flag.resolve(), budget.deadline
    )
    searcher = QueueSearcher(queue, lambda: flag.exists() or budget.is_used_up(), _group_of(sweep))
    errors: list[BaseException] = []

    def target() -> None:
        try:
            with tempfile.TemporaryDirectory(dir=workplace.directory()) as storage:
                _tuner(sweep, queue, searcher, attempt, at_once, storage, on_event).fit()
        except BaseException as error:  # the main thread raises it
            errors.append(error)

    # Tune runs on a thread of its own, because on the main thread it would handle signals itself.
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(timeout=0.2)
        budget.save_when_due()
        table.write_when_due()
    queue.may_write()
    if searcher.refusal is not None:
        raise searcher.refusal
    if errors:
        raise RuntimeError(f"the sweep failed: {errors[0]}") from errors[0]


def _tuner(
    sweep: Sweep,
    queue: TrialQueue,
    searcher: Any,
    attempt: Attempt,
    at_once: int,
    storage: str,
    on_event: OnEvent,
) -> Any:
    from ray import tune

    from sweeps.ray_tune import SilentProgressCallback, StopFileStopper, TrialStatusCallback

    return tune.Tuner(
        tune.with_resources(
            tune.with_parameters(run_trial, attempt=attempt),
            resources.of_trial(sweep.workers, sweep.gpu),
        ),
        tune_config=tune.TuneConfig(
            metric="score",
            mode="min",
            search_alg=searcher,
            num_samples=-1,  # the searcher decides when there are no more
            scheduler=_scheduler(sweep, queue),
            max_concurrent_trials=at_once,
        ),
        run_config=tune.RunConfig(
            storage_path=storage,
            name="sweep",
            verbose=0,
            stop=StopFileStopper(attempt.stop),
            callbacks=[TrialStatusCallback(queue, on_event), SilentProgressCallback()],
            failure_config=tune.FailureConfig(max_failures=sweep.max_failures),
        ),
    )


def _scheduler(sweep: Sweep, queue: TrialQueue) -> Any:
    """ASHA with what earlier attempts have seen, or None for a sweep without early stopping."""
    from sweeps.ray_tune import GroupedAsha

    if sweep.scheduler is None:
        return None
    group, score = _group_of(sweep), sweep.objective.score
    history = [
        (trial.id, group(trial), [{**m, "score": score(m)} for m in trial.evaluations()])
        for trial in queue.trials
    ]
    return GroupedAsha(sweep.scheduler, "score", history)


def _group_of(sweep: Sweep) -> Callable[[Trial], Any]:
    """The function that tells within which group a trial competes."""
    return lambda trial: trial.point[sweep.group_by] if sweep.group_by else None
