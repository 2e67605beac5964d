"""What a trial's directory says of it."""

from __future__ import annotations

from pathlib import Path

from cluster import runs
from cluster.logs import json_lines
from tests.sweeps.small_sweeps import planned, rates_and_weights


def test_a_status_is_kept_when_the_plan_is_made_again(base: Path, tmp_path: Path) -> None:
    first, second, third, _ = planned(rates_and_weights(base), tmp_path)
    first.set_status("stopped")
    second.set_status("failed", "the disk was full")
    (third.path / "result.json").write_text('{"mse": 1}')
    again = planned(rates_and_weights(base), tmp_path)
    assert [t.status() for t in again] == ["stopped", "failed", "finished", "pending"]
    assert again[1].state()["error"] == "the disk was full"
    assert again[0].state()["point"] == first.point


def test_evaluations_are_read_from_the_log(base: Path, tmp_path: Path) -> None:
    trial = planned(rates_and_weights(base), tmp_path)[0]
    assert trial.evaluations() == []
    log = runs.Run(trial.path).metrics
    json_lines.append(log, {"step": 1, "codec/loss": 3.0})
    json_lines.append(log, {"step": 5, "epoch": 1.0, "time": 2.0, "test/mse": 0.5, "test/mmd": 0.1})
    json_lines.append(log, {"step": 6, "codec/loss": 3.0})
    assert trial.evaluations() == [{"step": 5, "mse": 0.5, "mmd": 0.1}]
