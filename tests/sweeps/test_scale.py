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
from typing import Any

import pytest

from cluster import runs
from cluster.logs import json_lines
from sweeps import plan
from sweeps.ray_tune import QueueSearcher, TrialStatusCallback
from sweeps.results import ResultsTable, read_results
from sweeps.sweep_file import Sweep
from sweeps.trial import Trial
from sweeps.trial_queue import TrialQueue
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
    plan.write(sweep, [], directory)
    queue = TrialQueue(sweep, [], directory)
    table = ResultsTable([], sweep.objective, directory, queue.may_write)

    def noted(trial: Trial, *event: Any) -> None:
        table.note(trial)
        table.write_when_due()

    callback = TrialStatusCallback(queue, noted)
    searcher = QueueSearcher(queue, lambda: False, lambda trial: None)
    spent = [time.process_time()]
    for _ in range(count):
        told = SimpleNamespace(config=searcher.suggest(""))
        path = Path(told.config["trial"]["path"])
        callback.on_trial_start(1, [], told)
        json_lines.append(runs.Run(path).metrics, {"step": 5, "test/mse": 0.5})
        (path / "result.json").write_text("{}")
        callback.on_trial_complete(1, [], told)
        spent.append(time.process_time())
    assert searcher.suggest("") == "FINISHED"
    table.write()
    costs = [after - before for before, after in itertools.pairwise(spent)]
    first, last = statistics.median(costs[4:12]), statistics.median(costs[-8:])
    assert last < 2 * first, costs
    assert len(json.loads((directory / "trials.json").read_text())) == count
    assert {row["status"] for row in read_results(directory).rows} == {"finished"}


@pytest.mark.slow
def test_the_cost_of_a_trial_stays_flat_over_64_on_eight_nodes() -> None:
    """CPU time, which a busy machine stretches far less than time on the clock."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "sweep_costs.py"), "--parts", "scale"],
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
