"""Run a sweep's open trials with Ray Tune.

Tune schedules and stops trials; what is done and what is not stands in the trials' directories, so
Tune's own state is thrown away after every attempt.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster import runtime
from cluster.files import locked
from cluster.stopping import stop_requests
from sweeps.space import Sweep
from sweeps.trials import Trial

OnEvent = Callable[[Trial, str, dict[str, Any]], None]


def run(sweep: Sweep, trials: Sequence[Trial], directory: Path, on_event: OnEvent) -> bool:
    """Run the trials that are neither finished nor stopped early.

    Args:
        sweep: scheduler, objective and budget.
        trials: all trials of the sweep.
        directory: of the sweep.
        on_event: called with (trial, "running" | "finished" | "stopped" | "failed", its newest
            metrics).

    Returns:
        True when no trial is left to run; False when a signal stopped the sweep.

    Raises:
        InputError: another process runs the sweep.
        RuntimeError: Tune itself failed.
    """
    open_trials = [trial for trial in trials if trial.status() in ("pending", "failed")]
    if not open_trials:
        return True
    flag = directory / "stop"
    failures: list[BaseException] = []

    def target() -> None:
        try:
            with tempfile.TemporaryDirectory(dir=runtime.workplace()) as storage:
                _tuner(sweep, trials, open_trials, flag, storage, on_event).fit()
        except BaseException as error:  # raised on the main thread
            failures.append(error)

    with locked(directory), runtime.cluster(), stop_requests(flag):
        for trial in open_trials:
            trial.set_status("pending")
        # Not on the main thread, where Tune would put its own signal handlers in place.
        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(timeout=0.2)
    if failures:
        raise RuntimeError(f"the sweep failed: {failures[0]}") from failures[0]
    return all(trial.status() != "pending" for trial in trials)


def _tuner(
    sweep: Sweep,
    trials: Sequence[Trial],
    open_trials: Sequence[Trial],
    flag: Path,
    storage: str,
    on_event: OnEvent,
) -> Any:
    import ray
    from ray import tune

    from sweeps.tune_parts import GroupedAsha, StopWhenAsked, TrialKeeper

    def group(trial: Trial) -> Any:
        return trial.point[sweep.group_by] if sweep.group_by else None

    scheduler = None
    if sweep.scheduler is not None:
        history = [
            (
                trial.id,
                group(trial),
                [{**m, "score": sweep.objective.score(m)} for m in trial.evaluations()],
            )
            for trial in trials
        ]
        scheduler = GroupedAsha(sweep.scheduler, "score", history)
    # Of the whole cluster, which may be larger than this machine.
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    function = tune.with_parameters(
        _trial, objective=sweep.objective.model_dump(), flag=str(flag.resolve())
    )
    return tune.Tuner(
        tune.with_resources(function, {"cpu": 1}),
        param_space={
            "trial": tune.grid_search(
                [
                    {"id": t.id, "group": group(t), "path": str(t.path.resolve())}
                    for t in open_trials
                ]
            )
        },
        tune_config=tune.TuneConfig(
            metric="score",
            mode="min",
            scheduler=scheduler,
            max_concurrent_trials=min(sweep.concurrent or cpus, cpus),
        ),
        run_config=tune.RunConfig(
            storage_path=storage,
            name="sweep",
            verbose=0,
            stop=StopWhenAsked(flag),
            callbacks=[TrialKeeper({trial.id: trial for trial in open_trials}, on_event)],
            failure_config=tune.FailureConfig(max_failures=sweep.max_failures),
        ),
    )


def _trial(config: dict[str, Any], objective: dict[str, Any], flag: str) -> None:
    """Runs in the trial's process: the training loop in one process."""
    from ray import tune

    from cluster.runs import open_run
    from cluster.seat import Seat
    from cluster.worker import Host, train
    from sweeps.space import Objective

    goal, stop = Objective(**objective), Path(flag)
    if stop.exists():
        return

    def report(metrics: dict[str, float]) -> None:
        goal.require_known(metrics)
        tune.report({**{k: float(v) for k, v in metrics.items()}, "score": goal.score(metrics)})

    train(open_run(config["trial"]["path"]), Seat(), Host(report=report, should_stop=stop.exists))
