"""Runs in W&B's offline mode; skipped where W&B is not installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from cluster.logs import metrics_log
from cluster.tracking import wandb_files
from cluster.tracking.tracker import metrics_of
from tests.cluster.tracking.attempts import stopped_killed_and_finished
from tests.processes import ENVIRONMENT, Driver

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(find_spec("wandb") is None, reason="needs W&B: pip install wandb"),
]


def test_a_stop_and_a_kill(
    photos: Path,
    tmp_path: Path,
    drive: Callable[..., Driver],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One id over three attempts, every row and grid once, and W&B's own step grows."""
    for name, value in {"WANDB_MODE": "offline", "WANDB_PROJECT": "tests"}.items():
        monkeypatch.setitem(ENVIRONMENT, name, value)
    run = stopped_killed_and_finished(photos, tmp_path, drive, "wandb")
    folders = sorted((run.path / "wandb").glob("offline-run-*"))
    files = [next(folder.glob("*.wandb")) for folder in folders]
    assert len(files) == 3
    known = json.loads((run.path / "tracking.json").read_text())["wandb"]
    assert {folder.name.rpartition("-")[2] for folder in folders} == {known["id"]}

    logged = [row for file in files for row in wandb_files.history(file)]
    own_steps = [row["_step"] for row in logged]
    assert own_steps == sorted(set(own_steps))
    rows = [row for row in logged if "samples/path" not in row]
    places = [(row["step"], "samples_per_second" in row) for row in rows]
    assert len(places) == len(set(places))
    log = metrics_log.read(run.metrics)
    assert set(places) == {(row["step"], "samples_per_second" in row) for row in log}
    by_place = {(row["step"], "samples_per_second" in row): row for row in rows}
    for row in log:
        place = row["step"], "samples_per_second" in row
        values = {k: v for k, v in metrics_of(row).items() if k != "samples_per_second"}
        assert {name: by_place[place][name] for name in values} == pytest.approx(values)
    grids = [path.name for path in (run.path / "samples").iterdir()]
    assert len(logged) - len(rows) == len(grids) >= 6
    # The configuration of the run is the resolved recipe.
    keys = {
        item.key or "/".join(item.nested_key)
        for record in wandb_files.records(files[0])
        if record.WhichOneof("record_type") == "run"
        for item in record.run.config.update
    }
    assert "training.steps" in keys
