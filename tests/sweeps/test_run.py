"""`gencomp sweep` with Ray Tune, by real processes that are really killed."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.checkpoints import store
from cluster.logs import json_lines, process_log
from cluster.runs import Run
from gencomp.cli import main
from sweeps import plan, sweep_file
from sweeps.results import read_results
from sweeps.trial import Trial
from tests import tiny
from tests.processes import Driver, gone


@pytest.fixture
def file(photos: Path, generator_run: Path, tmp_path: Path) -> Path:
    """More channels are worse by this objective: who comes later to step 20 is stopped there."""
    overrides = {
        "training.steps": 60,
        "training.checkpoint_every": 5,
        "training.sample_every": 1000,
        "evaluation.every": 10,
    }
    base = tiny.write(tiny.codec(photos, generator_run, overrides), tmp_path / "codec.yaml")
    sweep = {
        "base": str(base),
        "space": {"networks.code_channels": {"grid": [1, 2, 3, 4, 5]}},
        "objective": {"minimise": "nominal_bpp"},
        "scheduler": {"grace": 20, "reduction": 2},
        "concurrent": 2,
        "max_failures": 0,
    }
    path = tmp_path / "rates.yaml"
    path.write_text(yaml.safe_dump(sweep))
    return path


def planned(file: Path, directory: Path) -> dict[int, Trial]:
    """Code channels -> trial, with its directory."""
    sweep = sweep_file.load(file, {})
    found = plan.make(sweep, directory)
    plan.write(sweep, found, directory)
    return {trial.point["networks.code_channels"]: trial for trial in found}


def clocks(trial: Trial, until: int) -> list[tuple[int, float]]:
    """The time at which each row of the log was written."""
    rows = json_lines.read(Run(trial.path).metrics)
    return [(row["step"], row["time"]) for row in rows if row["step"] <= until]


@pytest.mark.long
def test_killed_and_restarted(
    file: Path, tmp_path: Path, drive: Callable[..., Driver], capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "runs" / "rates"
    words = ["sweep", str(file), "--runs", str(tmp_path / "runs")]
    by_channels = planned(file, directory)
    # One trial cannot run: its only checkpoint is damaged.
    (Run(by_channels[5].path).checkpoints / "step-000000005").mkdir(parents=True)

    first = drive(*words)
    running: list[Trial] = []

    def one_finished_and_one_under_way() -> bool:
        running[:] = [
            t
            for t in by_channels.values()
            if t.status() == "pending"
            and list(Run(t.path).checkpoints.glob("step-*/manifest.json"))
        ]
        return by_channels[1].status() == "finished" and bool(running)

    first.wait_for(one_finished_and_one_under_way)
    assert main(words) == 2
    assert re.fullmatch(
        rf"gencomp: error: .* in use by process {first.process.pid} on .*\n",
        capsys.readouterr().err,
    )
    first.crash()
    before = {
        channels: (trial.path / "result.json").stat().st_mtime_ns
        for channels, trial in by_channels.items()
        if trial.status() == "finished"
    }
    stopped = [t for t in by_channels.values() if t.status() == "stopped"]
    logs = {t.id: json_lines.read(Run(t.path).metrics) for t in stopped}
    resumed = []
    for trial in running:
        if trial.status() == "pending":
            saved = store.newest(Run(trial.path).checkpoints)
            assert saved is not None
            resumed.append((trial, saved.step, clocks(trial, saved.step)))

    second = drive(*words)
    assert second.end() == 1, second.words()  # one trial has failed
    said = second.out.read_text()

    # What was finished or stopped is untouched; what was under way went on from its checkpoint.
    for channels, mtime in before.items():
        assert (by_channels[channels].path / "result.json").stat().st_mtime_ns == mtime
    for trial in stopped:
        assert json_lines.read(Run(trial.path).metrics) == logs[trial.id]
    for trial, step, rows in resumed:
        assert clocks(trial, step)[: len(rows)] == rows
        assert trial.status() in ("finished", "stopped")

    statuses = {channels: trial.status() for channels, trial in by_channels.items()}
    assert statuses[1] == "finished" and statuses[5] == "failed"
    assert statuses[3] == statuses[4] == "stopped"
    assert json_lines.read(Run(by_channels[4].path).metrics)[-1]["step"] < 60
    for channels in (3, 4):  # who is beaten has not failed
        assert "SystemExit" not in process_log.of_rank(by_channels[channels].path, 0).read_text()
    error = by_channels[5].state()["error"]
    assert "step-000000005 has no manifest.json" in error and error in said
    assert "Traceback" not in second.words()

    results = read_results(directory)
    assert [row["networks.code_channels"] for row in results.rows] == [1, 2, 3, 4, 5]
    assert results.best()[0]["networks.code_channels"] == 1
    assert json.loads((directory / "trials.json").read_text()) == [
        t.id for t in by_channels.values()
    ]
    assert results.run(results.rows[0]).system().codec() is not None
    assert gone(first.seen)


@pytest.mark.slow
def test_stopped_mended_and_complete(
    file: Path, tmp_path: Path, drive: Callable[..., Driver], capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM saves what runs; a failed trial is tried again; a complete sweep is read."""
    directory = tmp_path / "runs" / "rates"
    words = ["sweep", str(file), "--runs", str(tmp_path / "runs")]
    by_channels = planned(file, directory)
    damaged = Run(by_channels[5].path).checkpoints / "step-000000005"
    damaged.mkdir(parents=True)

    first = drive(*words)
    log = Run(by_channels[1].path).metrics
    first.wait_for(lambda: len(json_lines.read(log)) > 12)
    first.process.send_signal(signal.SIGTERM)
    assert first.end() == 130, first.words()
    assert "stopped; the same command goes on" in first.out.read_text()
    saved = store.newest(Run(by_channels[1].path).checkpoints)
    assert saved is not None and saved.step == json_lines.read(log)[-1]["step"]

    assert drive(*words).end() == 1
    damaged.rmdir()
    assert drive(*words).end() == 0
    assert main(words) == 0  # nothing to do: no cluster is started
    shown = capsys.readouterr().out
    assert "5 trials, 5 done" in shown


def test_a_table_says_its_scale_and_what_negative_means(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from types import SimpleNamespace

    from gencomp.cli.sweep import _print_rows

    sweep: Any = SimpleNamespace(space={}, objective=SimpleNamespace(minimised=["mse"]))
    _print_rows("trials", [{"trial": "a", "mse": 0.25, "mmd": -0.001}], sweep)
    _print_rows("trials", [{"trial": "a", "bpp": 0.5}], sweep)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("  mse: pixels on [-1, 1]. MMD: ") and "negative" in lines[1]
    assert lines[2].split()[0] == "trial" and lines[5].split()[0] == "trial"


def test_events_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    from types import SimpleNamespace

    from gencomp.cli.sweep import _print_event

    trial: Any = SimpleNamespace(point={"loss.mmd_weight": 3})
    _print_event(trial, "running", {"step": 5, "mse": 0.25, "other": 1.0})
    _print_event(trial, "failed", {"error": "the disk was full"})
    assert capsys.readouterr().out.splitlines() == [
        "  running  mmd_weight 3  step 5  mse 0.25",
        "  failed   mmd_weight 3  the disk was full",
    ]
