"""Run a sweep's open trials with Ray Tune.

Tune schedules and stops trials; what is done and what is not stands in the trials' directories, so
Tune's own state is thrown away after every attempt.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from cluster import ray_runtime
from cluster.checkpoints.writer import SavingError, has_no_room, mend_of
from cluster.stop_signals import stop_requests
from sweeps import trials as on_disk
from sweeps.sweep_file import Sweep
from sweeps.time_budget import Clock
from sweeps.trainable import Orders, capacity, resources, run_trial
from sweeps.trial_queue import Supply
from sweeps.trials import Trial

OnEvent = Callable[[Trial, str, dict[str, Any]], None]
# Ray wants the gangs' own processes beside its head, which has room for so many.
_MOST = 1000
# How an attempt ends: nothing is left to run; the budget leaves no room for what is; a signal came.
Ending = Literal["complete", "budget", "stopped"]


def run(sweep: Sweep, supply: Supply, directory: Path, on_event: OnEvent) -> Ending:
    """Run the trials that are neither finished nor stopped early, and those that a search proposes.

    The table of results is written whenever a trial starts or ends, and at the end.

    Args:
        sweep: scheduler, objective and budget.
        supply: of the sweep's trials.
        directory: of the sweep, which the caller holds as `supply.may_write` knows.
        on_event: called with a trial, what happened and its newest metrics or its error: "started",
            "running" (evaluated), "finished", "stopped" (early), "failed", or "again" (failed, but
            not for the last time).

    Raises:
        InputError: a trial wants more than the cluster has, or a search proposed an invalid recipe.
        RuntimeError: Tune itself failed; `LockLost` when another process has taken over the sweep.
    """
    table = _Table(sweep, supply, directory)
    clock = Clock(directory, sweep.budget.time, supply.may_write)
    if not supply.has_next() or clock.expired():
        return "complete" if supply.is_complete() else "budget"

    def told(trial: Trial, event: str, values: dict[str, Any]) -> None:
        if event != "running":
            table.update(trial)
        on_event(trial, event, values)

    cpus = None if sweep.gpu else max(sweep.workers, ray_runtime.usable_cpus())
    flag = directory / "stop"
    with ray_runtime.cluster(cpus=cpus), stop_requests(flag):
        try:
            _run(sweep, supply, flag, clock, told)
        except BaseException:
            with suppress(OSError):  # what came first is to be heard
                clock.note()
                table.update(*supply.trials)
            raise
        clock.note()
        table.update(*supply.trials)
        if supply.is_complete():
            return "complete"
        return "stopped" if flag.exists() else "budget"


@contextmanager
def room_needed(directory: Path) -> Iterator[None]:
    """Around what writes a sweep: a full disk is one sentence, as `SavingError`."""
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
    """What an error comes from, if that is a full disk."""
    while error is not None and not (isinstance(error, OSError) and has_no_room(error)):
        error = error.__cause__ or error.__context__  # Tune names no cause
    return error


def _run(sweep: Sweep, supply: Supply, flag: Path, clock: Clock, on_event: OnEvent) -> None:
    """One attempt on the cluster that this process is connected to."""
    import ray

    from sweeps.ray_tune import Source

    most = min(_MOST, capacity(ray.nodes(), sweep.workers, sweep.gpu))
    at_once = min(most, sweep.concurrent or most)
    orders = Orders(
        sweep.objective.model_dump(), sweep.workers, sweep.gpu, flag.resolve(), clock.deadline
    )
    source = Source(supply, lambda: flag.exists() or clock.expired(), _group_of(sweep))
    errors: list[BaseException] = []

    def target() -> None:
        try:
            with tempfile.TemporaryDirectory(dir=ray_runtime.workplace()) as storage:
                _tuner(sweep, supply, source, orders, at_once, storage, on_event).fit()
        except BaseException as error:  # raised on the main thread
            errors.append(error)

    # Not on the main thread, where Tune would put its own signal handlers in place.
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(timeout=0.2)
        clock.tick()
    supply.may_write()
    if source.refusal is not None:
        raise source.refusal
    if errors:
        raise RuntimeError(f"the sweep failed: {errors[0]}") from errors[0]


def _tuner(
    sweep: Sweep,
    supply: Supply,
    source: Any,
    orders: Orders,
    at_once: int,
    storage: str,
    on_event: OnEvent,
) -> Any:
    from ray import tune

    from sweeps.ray_tune import Silence, StopWhenAsked, TrialKeeper

    return tune.Tuner(
        tune.with_resources(
            tune.with_parameters(run_trial, orders=orders), resources(sweep.workers, sweep.gpu)
        ),
        tune_config=tune.TuneConfig(
            metric="score",
            mode="min",
            search_alg=source,
            num_samples=-1,  # the source decides
            scheduler=_scheduler(sweep, supply),
            max_concurrent_trials=at_once,
        ),
        run_config=tune.RunConfig(
            storage_path=storage,
            name="sweep",
            verbose=0,
            stop=StopWhenAsked(orders.stop),
            callbacks=[TrialKeeper(supply, on_event), Silence()],
            failure_config=tune.FailureConfig(max_failures=sweep.max_failures),
        ),
    )


def _scheduler(sweep: Sweep, supply: Supply) -> Any:
    """ASHA that knows what earlier attempts have seen, or None."""
    from sweeps.ray_tune import GroupedAsha

    if sweep.scheduler is None:
        return None
    group, score = _group_of(sweep), sweep.objective.score
    history = [
        (trial.id, group(trial), [{**m, "score": score(m)} for m in trial.evaluations()])
        for trial in supply.trials
    ]
    return GroupedAsha(sweep.scheduler, "score", history)


def _group_of(sweep: Sweep) -> Callable[[Trial], Any]:
    """What trials compete within."""
    return lambda trial: trial.point[sweep.group_by] if sweep.group_by else None


class _Table:
    """results.parquet, never older than the last start or end of a trial."""

    def __init__(self, sweep: Sweep, supply: Supply, directory: Path) -> None:
        self._objective, self._directory = sweep.objective, directory
        self._may_write = supply.may_write
        self._rows: dict[str, dict[str, Any]] = {}
        self.update(*supply.trials)

    def update(self, *trials: Trial) -> None:
        """Write it anew with the rows of some trials as they are now."""
        self._rows |= {trial.id: on_disk.row(trial, self._objective) for trial in trials}
        self._may_write()
        rows = on_disk.ranked(self._rows.values(), self._objective)
        on_disk.write_table(rows, self._directory)
