"""The histories of training runs: loss terms over steps, and the last evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cluster.logs import evaluation_rows, metrics_log
from cluster.runs import Run
from gencomp.report import History
from gencomp.report.content import Line


def read(run: Run, name: str) -> tuple[History, dict[str, float]]:
    """The loss terms of a run over its steps, and the metrics of its last evaluation with its step.

    Args:
        run: the run.
        name: the name of the history.
    """
    split = run.recipe().evaluation.split
    training: dict[str, list[tuple[float, float]]] = {}
    held_out: dict[str, list[tuple[float, float]]] = {}
    last: dict[str, float] = {}
    for row in metrics_log.read(run.metrics):
        metrics = evaluation_rows.from_row(row, split)
        found = {name: value for name, value in metrics.items() if value is not None}
        if found:
            last = {"step": row["step"], **found}
            if "mse" in found:
                found["rmse"] = math.sqrt(found["mse"])
            for term, value in found.items():
                held_out.setdefault(term, []).append((row["step"], value))
            continue
        for key, value in row.items():
            if "/" in key and value is not None:
                training.setdefault(key.rpartition("/")[2], []).append((row["step"], value))
    return History(name, _lines(training), _lines(held_out)), last


def _lines(points: Mapping[str, list[tuple[float, float]]]) -> dict[str, Line]:
    return {
        term: Line([s for s, _ in found], [v for _, v in found]) for term, found in points.items()
    }
