"""What Ray Tune runs for each trial: the training loop in this process, or in a gang of workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cluster.files import locked
from cluster.locks import Lease
from gencomp.errors import InputError
from sweeps.sweep_file import Objective
from sweeps.worker import Attempt, Task, train

# The longest time for which a trial waits for a process of an earlier attempt to die.
_SECONDS_TO_DIE = 60.0


def run_trial(config: dict[str, Any], attempt: Attempt) -> None:
    """Train a trial to its end, or until the attempt shall stop.

    Args:
        config: what `sweeps.ray_tune.QueueSearcher` suggested.
        attempt: what all trials have in common.
    """
    if attempt.should_stop():
        return
    task = Task(Path(config["trial"]["path"]), config["trial"]["until"])
    with _held(task.run) as lease:
        if attempt.workers == 1:
            train(task, 0, attempt, lease, reporter(attempt))
        else:
            # The gang imports Ray, which the process of the sweep sets up before it imports it.
            from sweeps.gang import train_gang

            train_gang(task, attempt, lease, reporter(attempt))


def reporter(attempt: Attempt) -> Callable[[dict[str, float]], None]:
    """A function that hands evaluations to Ray Tune and returns when the trial is to go on."""
    from ray import tune

    goal = Objective(**attempt.objective)

    def report(metrics: dict[str, float]) -> None:
        goal.require_known(metrics)
        tune.report({**{k: float(v) for k, v in metrics.items()}, "score": goal.score(metrics)})

    return report


@contextmanager
def _held(run: Path) -> Iterator[Lease]:
    """Hold the directory of a run, as soon as the process of an earlier attempt has died."""
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
