"""Readers of a metrics log get each step once, as the newest attempt logged it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.checkpoints.retention import Retention
from cluster.logs import json_lines, metrics_log
from cluster.results import histories
from cluster.runs import Run
from sweeps.trial import Trial
from tests import tiny

Rows = list[tuple[int, int]]


def steps(attempt: int, first: int, last: int) -> Rows:
    return [(attempt, step) for step in range(first, last + 1)]


# The rows (attempt, step) of a file in their order, and those that readers get.
CASES: dict[str, tuple[Rows, Rows]] = {
    "one attempt": (steps(1, 1, 9), steps(1, 1, 9)),
    "gone on with": (steps(1, 1, 4) + steps(2, 5, 9), steps(1, 1, 4) + steps(2, 5, 9)),
    "a late row of an early step": (
        [*steps(2, 1, 26), (1, 23), *steps(2, 27, 40)],
        steps(2, 1, 40),
    ),
    "a late row at the end": ([*steps(2, 1, 26), (1, 23)], steps(2, 1, 26)),
    "a late row before the new attempt's first": (
        [*steps(1, 1, 20), (1, 41), *steps(2, 21, 60)],
        [*steps(1, 1, 20), *steps(2, 21, 60)],
    ),
    "a late row of a step to come": (
        [*steps(1, 1, 20), *steps(2, 21, 26), (1, 41), *steps(2, 27, 30)],
        [*steps(1, 1, 20), *steps(2, 21, 30)],
    ),
    "two late rows of two attempts": (
        [*steps(3, 1, 9), (1, 4), (2, 7), *steps(3, 10, 30)],
        steps(3, 1, 30),
    ),
    "a step that two attempts have logged": (
        [*steps(1, 1, 5), *steps(2, 4, 9)],
        [*steps(1, 1, 3), *steps(2, 4, 9)],
    ),
    "none": ([], []),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Rows]:
    written, read = request.param
    path = tmp_path / "metrics.jsonl"
    for attempt, step in written:
        json_lines.append(path, row(attempt, step))
    return path, read


def row(attempt: int, step: int) -> dict[str, Any]:
    return {"step": step, "attempt": attempt, "samples_per_second": 1.0, "time": 1.0}


def of(rows: list[dict[str, Any]]) -> Rows:
    return [(row["attempt"], row["step"]) for row in rows]


def test_each_reader_gets_each_step_once(case: tuple[Path, Rows]) -> None:
    path, expected = case
    assert of(metrics_log.read(path)) == expected
    assert of(list(metrics_log.newest_first(path))) == expected[::-1]
    kept: dict[int, int] = {}
    for attempt, step in of(metrics_log.Follower(path)()):
        kept = {s: a for s, a in kept.items() if s < step} | {step: attempt}
    assert [(a, s) for s, a in kept.items()] == expected


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("checkpoint", [0, 3, 6])
@pytest.mark.parametrize("written", [0, 1, 3, 20])
@pytest.mark.parametrize("seen", [0, 2, 4, 6])
def test_no_row_is_missed_or_given_twice_where_a_log_was_rewound_between_two_looks(
    tmp_path: Path, seen: int, written: int, checkpoint: int, skip: bool
) -> None:
    path = tmp_path / "metrics.jsonl"
    first, second = steps(1, 1, 6), steps(2, checkpoint + 1, checkpoint + written)
    for attempt, step in first[:seen]:
        json_lines.append(path, row(attempt, step))
    new_rows = metrics_log.Follower(path, skip=skip)
    before = of(new_rows())
    assert before == ([] if skip else first[:seen])
    for attempt, step in first[seen:]:
        json_lines.append(path, row(attempt, step))
    metrics_log.begin(path, checkpoint, starts=2)
    for attempt, step in second:
        json_lines.append(path, row(attempt, step))
    assert of(new_rows()) == first[seen:checkpoint] + second
    assert new_rows() == []


def test_a_new_attempt_goes_on_behind_its_checkpoint(case: tuple[Path, Rows]) -> None:
    path, expected = case
    newest = max((row["attempt"] for row in json_lines.read(path)), default=0)
    assert metrics_log.begin(path, 5, starts=1) == newest + 1
    assert of(json_lines.read(path)) == [(a, s) for a, s in expected if s <= 5]
    assert metrics_log.begin(path, 5, starts=9) == 9  # others have begun, and have logged nothing


def test_an_evaluation_at_the_step_of_the_start_replaces_no_row_of_training(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    evaluation = {"step": 3, "attempt": 2, "test/mse": 1.0}
    for one in (row(1, 2), row(1, 3), {**evaluation, "attempt": 1}, evaluation):
        json_lines.append(path, one)
    assert metrics_log.read(path) == [row(1, 2), row(1, 3), evaluation]


def test_a_log_without_attempts_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in range(1, 30):
        json_lines.append(path, {"step": step, "test/mse": 1.0})
    assert [row["step"] for row in metrics_log.read(path)] == list(range(1, 30))
    assert metrics_log.begin(path, 9, starts=0) == 1


def test_what_is_computed_from_a_log_knows_no_late_rows(photos: Path, tmp_path: Path) -> None:
    """A host that was cut off came back: it had evaluated step 8, at a worse error."""
    recipe = tiny.generator(photos, {"training.keep_best": 1, "training.keep_best_metric": "mse"})
    run = tiny.started(tmp_path / "run", recipe)
    for attempt, step, mse in ((2, 4, 0.4), (2, 8, 0.3), (2, 12, 0.2), (1, 8, 9.0), (2, 16, 0.1)):
        row = {"step": step, "attempt": attempt, "test/mse": mse}
        json_lines.append(run.metrics, row)
    expected = {4: 0.4, 8: 0.3, 12: 0.2, 16: 0.1}
    assert Retention(run.metrics, run.recipe()).scores(expected) == expected
    found, last = histories.read(Run(run.path), "x")
    assert list(found.held_out["mse"].steps) == list(expected) and last["step"] == 16
    trial = Trial("x", run.path, {}, run.recipe())
    assert [row["step"] for row in trial.evaluations()] == list(expected)
