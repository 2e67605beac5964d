"""How training went, from the metrics log alone."""

from __future__ import annotations

import pytest

from cluster.logs import json_lines
from cluster.results import histories
from cluster.runs import Run


def test_terms_of_training_and_of_evaluations(run: Run) -> None:
    run.metrics.unlink()
    for row in (
        {"step": 1, "generator/loss": 3.0, "critic/penalty": 0.5, "samples_per_second": 10.0},
        {"step": 2, "test/mse": 0.25, "test/mmd": 0.1},
        {"step": 3, "generator/loss": float("nan"), "critic/penalty": 0.4},
        {"step": 4, "test/mse": 0.04, "test/mmd": float("inf")},
    ):
        json_lines.append(run.metrics, row)
    history, last = histories.read(run, "mine")
    assert history.name == "mine"
    assert {
        term: (list(line.steps), list(line.values)) for term, line in history.training.items()
    } == {
        "loss": ([1], [3.0]),
        "penalty": ([1, 3], [0.5, 0.4]),
    }
    held_out = {term: dict(zip(*line, strict=True)) for term, line in history.held_out.items()}
    assert held_out["mse"] == {2: 0.25, 4: 0.04} and held_out["mmd"] == {2: 0.1}
    # Beside the training's term of that name.
    assert held_out["rmse"] == {2: 0.5, 4: pytest.approx(0.2)}
    assert last == {"step": 4, "mse": 0.04}


def test_a_run_without_a_row_has_no_history(run: Run) -> None:
    run.metrics.unlink()
    history, last = histories.read(run, "new")
    assert (history.training, history.held_out, last) == ({}, {}, {})
