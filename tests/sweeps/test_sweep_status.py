"""The status of a sweep: what the sweep says of a trial, and what the trial's own files say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cluster.files import locked
from sweeps import sweep_status


@pytest.mark.parametrize(
    ("told", "finished", "state"),
    [
        ({"status": "stopped"}, False, "stopped"),
        ({"status": "failed", "error": "ValueError: too large"}, False, "failed"),
        ({"status": "pending"}, False, "pending"),
        ({"status": "pending"}, True, "finished"),
        # The run's own result comes before a status that was not written any more.
        ({"status": "failed", "error": "late"}, True, "finished"),
        (None, False, "pending"),
    ],
)
def test_the_end_of_a_trial(
    generator_run: Path, tmp_path: Path, told: dict[str, str] | None, finished: bool, state: str
) -> None:
    trial = Path(shutil.copytree(generator_run, tmp_path / "trials" / "one"))
    shutil.rmtree(trial / "logs", ignore_errors=True)  # nobody has worked on it
    if not finished:
        (trial / "result.json").unlink()
    point = {"loss.mmd_weight": 3}
    if told is None:
        (trial / "trial.json").write_text("{ha")
    else:
        (trial / "trial.json").write_text(json.dumps({**told, "point": point}))
    found = sweep_status.read(tmp_path)
    ((tried, run),) = found.trials
    assert run.state == state
    assert tried == ({} if told is None else point)
    if state == "failed":
        assert run.detail == "ValueError: too large"


def test_who_runs_it(tmp_path: Path) -> None:
    assert not sweep_status.is_sweep(tmp_path)
    (tmp_path / "sweep.yaml").write_text("base: one\n")
    (tmp_path / "trials" / "no run").mkdir(parents=True)
    assert sweep_status.is_sweep(tmp_path)
    assert sweep_status.read(tmp_path) == sweep_status.SweepStatus(tmp_path, None, [])
    with locked(tmp_path):
        assert "process" in (sweep_status.read(tmp_path).holder or "")
