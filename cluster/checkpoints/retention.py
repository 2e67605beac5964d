"""The rule that says which checkpoints of a run are kept: the last, the best and every n-th step.

At every save, the rule is applied anew to the metrics log and the steps alone: it has no state of
its own that a crash could lose or that could go stale.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from operator import itemgetter
from pathlib import Path

from cluster.checkpoints import store
from cluster.logs import evaluation_rows, metrics_log
from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe


def chosen(
    steps: Iterable[int],
    last: int,
    best: int = 0,
    every: int | None = None,
    scores: Mapping[int, float] | None = None,
) -> set[int]:
    """The steps whose checkpoints are kept.

    Args:
        steps: the steps of all checkpoints.
        last: the number of newest checkpoints to keep.
        best: the number of checkpoints with the least scores to keep; of equal ones, the older.
        every: checkpoints whose step is a multiple of this number are kept for ever.
        scores: step -> score; a checkpoint without a score is never among the best.
    """
    found = set(steps)
    scored = sorted((score, step) for step, score in (scores or {}).items() if step in found)
    return {
        *sorted(found)[-last:],
        *(step for _, step in scored[:best]),
        *(step for step in found if every and step % every == 0),
    }


class Retention:
    """The rule of a recipe, applied to its run.

    A checkpoint's score is the recipe's `keep_best_metric` in the evaluation at its step, or in the
    last evaluation before. A value that is not finite, null in the log, is no score.

    Args:
        log: the metrics log of the run.
        recipe: the recipe of the run.
    """

    def __init__(self, log: Path, recipe: BaseRecipe) -> None:
        self._rule = recipe.training
        self._new_rows = metrics_log.Follower(log)
        self._split = recipe.evaluation.split
        self._evaluations: list[tuple[int, float | None]] = []

    def kept(self, steps: Iterable[int]) -> set[int]:
        """The steps of the checkpoints that are kept.

        Args:
            steps: the steps of all checkpoints.

        Raises:
            InputError: the evaluations do not give the metric.
        """
        rule, steps = self._rule, list(steps)
        scores = self.scores(steps) if rule.keep_best else {}
        return chosen(steps, rule.keep_checkpoints, rule.keep_best, rule.keep_every, scores)

    def scores(self, steps: Iterable[int]) -> dict[int, float]:
        """The score by step, for the checkpoints that have one."""
        self._follow()
        found = {}
        for step in steps:
            before = bisect_right(self._evaluations, step, key=itemgetter(0))
            score = self._evaluations[before - 1][1] if before else None
            if score is not None:
                found[step] = score
        return found

    def _follow(self) -> None:
        """Read the evaluations that have been added to the log since the last time."""
        for row in self._new_rows():
            if not (metrics := evaluation_rows.from_row(row, self._split)):
                continue
            if self._rule.keep_best_metric not in metrics:
                raise InputError(
                    f"training.keep_best_metric is {self._rule.keep_best_metric!r}, but the "
                    f"evaluations of this run give {', '.join(metrics)}"
                )
            while self._evaluations and self._evaluations[-1][0] >= row["step"]:
                self._evaluations.pop()
            self._evaluations.append((row["step"], metrics[self._rule.keep_best_metric]))


def prune(directory: Path, kept: Iterable[int]) -> None:
    """Remove the checkpoints of all steps but those that are kept."""
    keep = set(kept)
    for path in store.directories(directory):
        if store.step_of(path) not in keep:
            store.remove(path)


def best(directory: Path, scores: Mapping[int, float]) -> store.Checkpoint | None:
    """The whole checkpoint with the least score (the older of equal ones), if there is one.

    Args:
        directory: the directory of the checkpoints.
        scores: step -> score.
    """
    for step in sorted(scores, key=lambda step: (scores[step], step)):
        path = directory / store.name_of(step)
        try:
            store.verify(path)
        except store.CorruptCheckpoint:
            continue
        return store.Checkpoint(path, averaged=True)
    return None
