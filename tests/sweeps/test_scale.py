"""Many trials: what a sweep's own process spends on one does not grow with their number."""

from __future__ import annotations

import itertools
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster import runs
from cluster.logs import json_lines
from sweeps import run, trials
from sweeps.ray_tune import Source, TrialKeeper
from sweeps.sweep_file import Sweep
from sweeps.trial_queue import Supply
from tests import tiny
from tests.processes import ENVIRONMENT, ROOT


def test_the_cost_of_a_proposed_trial_stays_flat(
    photos: Path, generator_run: Path, tmp_path: Path
) -> None:
    """All that is done between Tune's calls: proposal, run, statuses, table. CPU time."""
    count = 32
    base = tiny.write(tiny.codec(photos, generator_run), tmp_path / "codec.yaml")
    sweep = Sweep.model_validate(
        {
            "base": str(base),
            "space": {"loss.mmd_weight": {"uniform": [0, 9]}},
            "search": {"sampler": "random"},
            "budget": {"trials": count},
        }
    )
    directory = tmp_path / "sweep"
    trials.write_plan(sweep, [], directory)
    supply = Supply(sweep, [], directory)
    table = run._Table(sweep, supply, directory)
    keeper = TrialKeeper(supply, lambda trial, *_: table.update(trial))
    source = Source(supply, lambda: False, lambda trial: None)
    spent = [time.process_time()]
    for _ in range(count):
        told = SimpleNamespace(config=source.suggest(""))
        path = Path(told.config["trial"]["path"])
        keeper.on_trial_start(1, [], told)
        json_lines.append(runs.Run(path).metrics, {"step": 5, "test/mse": 0.5})
        (path / "result.json").write_text("{}")
        keeper.on_trial_complete(1, [], told)
        spent.append(time.process_time())
    assert source.suggest("") == "FINISHED"
    costs = [after - before for before, after in itertools.pairwise(spent)]
    first, last = statistics.median(costs[4:12]), statistics.median(costs[-8:])
    assert last < 2 * first, costs
    assert len(json.loads((directory / "trials.json").read_text())) == count
    assert {row["status"] for row in trials.read_results(directory).rows} == {"finished"}


@pytest.mark.slow
def test_the_cost_of_a_trial_stays_flat_over_64_on_eight_nodes() -> None:
    """CPU time, which a busy machine stretches far less than time on the clock."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "sweeps.py"), "--parts", "scale"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ratio = re.search(r"last quarter / mean of the first: ([\d.]+)", done.stdout)
    last = re.search(r"^last quarter +([\d.]+)", done.stdout, re.MULTILINE)
    assert ratio is not None and last is not None, done.stdout
    assert float(ratio[1]) < 2 and float(last[1]) < 0.5, done.stdout
