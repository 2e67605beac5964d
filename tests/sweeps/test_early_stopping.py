"""A trial that the scheduler stops early has ended in good order: its log and its status say so."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from cluster.files import locked
from cluster.logs import json_lines, process_log
from gencomp.cli import main
from sweeps.worker import Attempt, Task, train
from tests.sweeps.small_sweeps import planned, rates_and_weights


@pytest.mark.parametrize(
    ("ended_at", "outcome", "state"), [(5, "stopped", "stopped"), (12, "finished", "finished")]
)
def test_it_is_no_failure(
    ended_at: int,
    outcome: str,
    state: str,
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ray Tune raises SystemExit(0) in the report after which a trial is not to go on."""
    directory = tmp_path / "sweep"
    trial = planned(rates_and_weights(base), directory)[0]

    def report(metrics: dict[str, float]) -> None:
        if metrics["step"] == ended_at:
            sys.exit(0)

    trial.count_start()
    with locked(trial.path) as lease, pytest.raises(SystemExit):
        task = Task(trial.path, None)
        train(task, 0, Attempt({}, 1, False, tmp_path / "never", math.inf), lease, report)
    if state == "stopped":
        trial.set_status("stopped")

    rows = [r for r in json_lines.read(process_log.of_rank(trial.path, 0)) if "event" in r]
    assert [(row["event"], row["level"], row["step"]) for row in rows] == [
        ("start", "INFO", 0),
        ("end", "INFO", ended_at),
    ]
    assert rows[-1]["outcome"] == outcome and "traceback" not in rows[-1]
    assert main(["status", str(directory), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["sweeps"][0]["trials"]
    (found,) = [one for one in shown if Path(one["path"]) == trial.path]
    assert (found["state"], found["failures"]) == (state, [])
