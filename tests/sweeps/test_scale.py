"""Sweeps on many nodes: what the driver spends on a trial does not grow with their number."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.processes import ENVIRONMENT, ROOT


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
