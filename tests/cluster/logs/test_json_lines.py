"""Files of JSON lines survive torn lines and are followed across rewinds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from cluster.logs import json_lines, metrics_log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    for step in range(1, 6):
        json_lines.append(path, {"step": step, "loss": 1 / step})
    return path


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    path = tmp_path / "log"
    json_lines.append(path, {"step": 1, "a": math.nan, "b": -math.inf, "c": 0.5, "d": "text"})
    assert path.read_text() == '{"step": 1, "a": null, "b": null, "c": 0.5, "d": "text"}\n'


def test_a_torn_last_line_is_ignored(log: Path) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write('{"step": 6, "lo')
    assert [row["step"] for row in json_lines.read(log)] == [1, 2, 3, 4, 5]
    assert json_lines.read(log.with_name("missing")) == []


def test_follow(log: Path) -> None:
    rows, offset = json_lines.follow(log, 0)
    assert len(rows) == 5 and offset == json_lines.end(log)
    assert json_lines.follow(log, offset) == ([], offset)
    with log.open("a", encoding="utf-8") as file:
        file.write('{"step": 6}\n{"st')
    rows, offset = json_lines.follow(log, offset)
    assert rows == [{"step": 6}]
    with log.open("a", encoding="utf-8") as file:
        file.write('ep": 7}\n')
    assert json_lines.follow(log, offset)[0] == [{"step": 7}]
    assert json_lines.follow(log.with_name("missing"), 0) == ([], 0)


def test_follow_across_a_rewind(log: Path) -> None:
    offset = json_lines.end(log)
    metrics_log.begin(log, 2, 1)
    rows, offset = json_lines.follow(log, offset)
    assert rows == []
    json_lines.append(log, {"step": 3})
    assert json_lines.follow(log, offset)[0] == [{"step": 3}]


@pytest.mark.parametrize("length", range(1, 40, 3))
def test_follow_when_a_rewound_log_has_grown_again(log: Path, length: int) -> None:
    """Between two looks, workers started again and wrote more than was there."""
    offset = json_lines.end(log)
    metrics_log.begin(log, 2, 1)
    for step in range(3, 9):
        json_lines.append(log, {"step": step, "text": "x" * length})
    rows, offset = json_lines.follow(log, offset)
    assert all(row["step"] > 2 for row in rows)
    assert offset == json_lines.end(log)
    json_lines.append(log, {"step": 9})
    assert json_lines.follow(log, offset)[0] == [{"step": 9}]


def test_rows_are_json_lines(log: Path) -> None:
    assert [json.loads(line)["step"] for line in log.read_text(encoding="utf-8").splitlines()] == [
        1,
        2,
        3,
        4,
        5,
    ]
