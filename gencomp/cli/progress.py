"""What long commands show: a bar with remaining time on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Self

from gencomp.recipes.schema import BaseRecipe

_SECONDS_BETWEEN_LINES = 10.0
_HIDDEN = ("step", "epoch", "time")


class TrainingLines:
    """Shows the rows of a metrics log as they come."""

    def __init__(self, recipe: BaseRecipe, name: str) -> None:
        training = recipe.training
        self._unit = "step" if training.steps is not None else "epoch"
        self._total = float(training.steps or training.epochs or 1)
        self._name = name
        self._last = 0.0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if sys.stdout.isatty():
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[text]}"),
            )
            self._bar.start()
            self._task = self._bar.add_task(self._name, total=self._total, text="starting workers")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, row: Mapping[str, Any]) -> None:
        """One row of the log: evaluations always, training rows every few seconds."""
        text = "  ".join(
            f"{name} {value:.4g}"
            for name, value in row.items()
            if name not in _HIDDEN and value is not None
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=row[self._unit], text=text)
            return
        evaluation = "samples_per_second" not in row
        if evaluation or time.monotonic() - self._last > _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            print(f"  step {row['step']} ({row[self._unit] / self._total:.0%})  {text}", flush=True)
