"""The table of a sweep: its rows, their order, and the best of them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from cluster import runs
from cluster.logs import json_lines
from gencomp.errors import InputError
from sweeps.results import best_of_each, read_results, table, write_table
from sweeps.sweep_file import Objective
from sweeps.trial import Trial
from tests.sweeps.small_sweeps import planned, rates_and_weights


@pytest.fixture
def four(base: Path, tmp_path: Path) -> list[Trial]:
    """1 channel: λ 0 finished (0.3), λ 10 stopped (0.2); 2: stopped (0.1), failed."""
    found = planned(rates_and_weights(base), tmp_path / "sweep")
    for trial, mse in zip(found[:3], (0.3, 0.2, 0.1), strict=True):
        json_lines.append(
            runs.Run(trial.path).metrics, {"step": 5, "test/mse": mse, "test/bpp": 0.5}
        )
    (found[0].path / "result.json").write_text('{"mse": 0.3}')
    found[1].set_status("stopped")
    found[2].set_status("stopped")
    found[3].set_status("failed", "broken")
    return found


def test_rows_best_first(four: list[Trial]) -> None:
    rows = table(four, Objective())
    assert [row["score"] for row in rows] == [0.1, 0.2, 0.3, math.inf]
    assert rows[0]["networks.code_channels"] == 2 and rows[0]["step"] == 5
    assert rows[3]["status"] == "failed" and rows[3]["error"] == "broken"


def test_best_of_each_group_prefers_the_finished(four: list[Trial]) -> None:
    rows = table(four, Objective())
    best = best_of_each(rows, "networks.code_channels")
    assert [(r["networks.code_channels"], r["status"]) for r in best] == [
        (1, "finished"),
        (2, "stopped"),
    ]
    (one,) = best_of_each(rows, None)
    assert one["status"] == "finished"


def test_as_parquet_and_back(base: Path, four: list[Trial], tmp_path: Path) -> None:
    rows = table(four, Objective())
    write_table(rows, tmp_path / "sweep")
    read = read_results(tmp_path / "sweep")
    assert [row["trial"] for row in read.rows] == [row["trial"] for row in rows]
    assert [r["status"] for r in read.best()] == ["finished", "stopped"]
    assert read.run(read.rows[0]).path == four[2].path


def test_a_directory_without_results(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no results of a sweep"):
        read_results(tmp_path)
