"""Workers that do not meet say so within their limit, and the driver does not wait for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.logs import process_log
from tests import tiny
from tests.cluster.ray_train.test_scaling import endless
from tests.processes import ENVIRONMENT, Driver
from tests.waiting import PATIENCE, wait_for

# One of two ranks, which meets nobody; rank 1 goes where nobody listens.
ALONE = """
import sys
from cluster.ray_train import process_group
process_group._MEETING_SECONDS = 1
rank = int(sys.argv[1])
first = process_group.listen()
process_group.join(world_rank=rank, world=2, first=first, backend="gloo", timeout=600)
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_meets_nobody_names_the_address(rank: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(rank)],
        env=ENVIRONMENT | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    (*_, last) = done.stderr.strip().splitlines()
    host = os.uname().nodename
    assert last.startswith(
        f"ConnectionError: rank {rank} on {host} did not meet all 2 ranks at 127.0.0.1:"
    ), done.stderr
    assert last.endswith(f" on {host} within 1 s")


@pytest.mark.slow
def test_sigterm_ends_a_start_that_hangs(
    photos: Path, tmp_path: Path, drive: Callable[..., Driver]
) -> None:
    """A worker is stopped as soon as it lives: the others, and Ray's controller, wait for it."""
    file = tiny.write(endless(photos), tmp_path / "tiny.yaml")
    driver = drive("train", str(file), "--runs", str(tmp_path), "--workers", "2")
    driver.wait_for(lambda: bool(driver.workers()))
    os.kill(driver.workers()[0].pid, signal.SIGSTOP)
    assert not process_log.of_rank(tmp_path / "tiny", 0).exists()
    driver.process.send_signal(signal.SIGTERM)
    assert wait_for(lambda: driver.process.poll() is not None, 120)
    assert driver.end() == 130, driver.words()
    assert "did not start in time" in driver.words()
