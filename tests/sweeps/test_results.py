"""The table of a sweep: its rows, their order, and the best of them."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import runs
from cluster.logs import json_lines
from gencomp.errors import InputError
from sweeps import results
from sweeps.results import (
    ResultsTable,
    best_of_each,
    pareto_front,
    read_results,
    table,
    write_table,
)
from sweeps.sweep_file import Objective
from sweeps.trial import Trial
from tests.sweeps.small_sweeps import planned, rates_and_weights


@pytest.fixture
def four(base: Path, tmp_path: Path) -> list[Trial]:
    """Trials of 1 channel, finished (0.3) and stopped (0.2), and of 2: stopped (0.1), failed."""
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


@given(values=st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=30))
def test_the_front_is_what_no_other_row_beats(values: list[tuple[int, int, int]]) -> None:
    """It agrees with the definition for many rows that are equal in some metrics or in all."""
    objective = Objective(minimise="a", against=("b", "c"))
    rows = [
        {"trial": str(n), "status": "finished", "a": a, "b": b, "c": c}
        for n, (a, b, c) in enumerate(values)
    ]

    def beaten(mine: tuple[int, int, int]) -> bool:
        return any(
            other != mine and all(o <= m for o, m in zip(other, mine, strict=True))
            for other in values
        )

    wanted = [row for row, mine in zip(rows, values, strict=True) if not beaten(mine)]
    assert pareto_front(rows, objective) == sorted(wanted, key=lambda r: (r["a"], r["b"], r["c"]))


def test_a_table_is_written_in_a_small_share_of_the_time(
    base: Path, four: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events are noted at once; the file follows when it is due, and when it is asked for."""
    now, writes = [100.0], []

    def slowly(rows: list[dict[str, object]], directory: Path) -> None:
        now[0] += 1.0
        writes.append([row["status"] for row in rows])

    monkeypatch.setattr(results.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(results, "write_table", slowly)
    found = ResultsTable(four, Objective(), tmp_path / "sweep", lambda: None)
    four[3].set_status("pending")
    found.note(four[3])
    found.write_when_due()
    assert len(writes) == 1
    now[0] += 50.0  # a second of writing in each 51
    found.write_when_due()
    found.write_when_due()
    assert writes[1:] == [["stopped", "stopped", "finished", "pending"]]
    found.write()
    assert len(writes) == 3


def test_a_table_can_be_pickled(base: Path, four: list[Trial], tmp_path: Path) -> None:
    """Tune pickles what its callbacks hold when it saves its own state."""
    found = ResultsTable(four, Objective(), tmp_path / "sweep", nothing)
    again = pickle.loads(pickle.dumps(found))
    again.write()
    assert len(read_results(tmp_path / "sweep").rows) == 4


def nothing() -> None:
    """A permission to write that is always given."""
