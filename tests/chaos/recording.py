"""`gencomp` whose workers write down which samples every step takes.

    python -m tests.chaos.recording FOLDER train RECIPE …

Nothing else differs: Ray Train gets the product's own loop, in whose processes `Steps` is the
subclass below. Each process has a file of its own, so that a kill cuts nothing but its last line.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cluster import worker
from cluster.logs import json_lines
from cluster.runs import Run
from cluster.training.steps import Steps, Updated
from cluster.training.worker_info import WorkerInfo
from gencomp.system import Batch, Progress


class RecordingSteps(Steps):
    """Writes the samples of each step when they are taken."""

    def __init__(
        self, folder: Path, recipe: Any, system: Any, optimizers: Any, worker: WorkerInfo
    ) -> None:
        super().__init__(recipe, system, optimizers, worker)
        self._file = folder / f"{worker.rank}-{os.getpid()}.jsonl"
        self._place = {"rank": worker.rank, "world": worker.world}

    def step(self, progress: Progress, next_batch: Callable[[], Batch]) -> Iterator[Updated]:
        def recorded() -> Batch:
            batch = next_batch()
            taken = {"rows": batch.rows_B.tolist(), "positions": batch.positions_B.tolist()}
            row = {"time": time.time(), "step": progress.step, **self._place, **taken}
            json_lines.append(self._file, row)
            return batch

        return super().step(progress, recorded)


def run_recorded(folder: Path, loop: Callable[[Any], Any], config: Any) -> Any:
    """The product's loop in a worker."""
    worker.Steps = partial(RecordingSteps, folder)  # type: ignore[assignment,misc]
    return loop(config)


def main(folder: Path, words: list[str]) -> int:
    """A command line of gencomp, whose trainer starts recording workers."""
    from cluster import ray_runtime
    from gencomp.cli import main as gencomp

    start = ray_runtime.cluster

    @contextmanager
    def cluster(**options: Any) -> Iterator[None]:
        with start(**options):  # only then may Ray be imported
            _record(folder)
            yield

    ray_runtime.cluster = cluster  # type: ignore[assignment]
    return gencomp(words)


def _record(folder: Path) -> None:
    """Trainers that are made from now on have recording workers."""
    import ray.train.torch
    from ray.train.torch import TorchTrainer

    class RecordingTrainer(TorchTrainer):
        def __init__(self, train_loop_per_worker: Callable[[Any], Any], **options: Any) -> None:
            super().__init__(partial(run_recorded, folder, train_loop_per_worker), **options)

    ray.train.torch.TorchTrainer = RecordingTrainer


def assert_exact(folder: Path, run: Run) -> None:
    """Every step of a finished run took the samples of the undisturbed order, shared by all ranks.

    Steps whose work a fault destroyed were taken again: the last time counts, and none of the
    others took anything else.
    """
    taken = [row for path in folder.iterdir() for row in json_lines.read(path)]
    recipe = run.recipe()
    size, steps = recipe.data.batch_size, recipe.training.steps
    assert steps is not None
    rows = _order(run, steps * size)
    last: dict[int, dict[int, dict[str, Any]]] = {}
    for one in sorted(taken, key=lambda one: one["time"]):
        begin = one["step"] * size
        assert one["positions"] == list(range(begin + one["rank"], begin + size, one["world"])), one
        assert one["rows"] == [rows[position] for position in one["positions"]], one
        ranks = last.setdefault(one["step"], {})
        if any(other["world"] != one["world"] for other in ranks.values()):
            ranks.clear()
        ranks[one["rank"]] = one
    assert sorted(last) == list(range(steps))
    for step, ranks in last.items():
        seen = sorted(position for one in ranks.values() for position in one["positions"])
        assert seen == list(range(step * size, (step + 1) * size)), f"step {step} took {seen}"


def _order(run: Run, samples: int) -> list[int]:
    """Rows in the order that the data floor defines."""
    import shards
    from shards.reading.order import EpochOrder

    recipe = run.recipe()
    assert recipe.data.shards is not None
    split = shards.open_set(recipe.data.shards).split(recipe.data.split)
    order = EpochOrder(split.key_hash, recipe.training.seed, len(split))
    return order.rows(np.arange(samples)).tolist()


if __name__ == "__main__":
    # By its name, so that workers import it instead of getting copies of what is in __main__.
    from tests.chaos import recording

    sys.exit(recording.main(Path(sys.argv[1]), sys.argv[2:]))
