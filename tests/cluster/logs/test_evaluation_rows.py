"""Rows of evaluations in a metrics log."""

from __future__ import annotations

from pathlib import Path

from cluster.logs import evaluation_rows, json_lines


def test_what_is_written_is_read(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    metrics = {"mse": 0.25, "mmd": float("inf")}
    json_lines.append(log, {"step": 3, **evaluation_rows.to_row(metrics, "val")})
    json_lines.append(log, {"step": 3, "generator/loss": 1.0})
    evaluation, training = json_lines.read(log)
    assert evaluation_rows.from_row(evaluation, "val") == {"mse": 0.25, "mmd": None}
    assert evaluation_rows.from_row(evaluation, "test") == {}
    assert evaluation_rows.from_row(training, "val") == {}
