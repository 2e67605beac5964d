"""Many workers on many nodes: what the driver and Ray's controller spend on a step."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.runs import Run
from tests import processes, tiny
from tests.cluster.ray_clusters import RayCluster
from tests.cluster.ray_train.test_scaling import endless, step_of
from tests.processes import Driver, Process
from tests.waiting import wait_for

NODES, CPUS = 8, 4
STEPS = 20
START_SECONDS = 900.0  # 32 processes import torch on two cores


def cpu_seconds(process: Process) -> float:
    fields = (
        Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    )
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_the_cost_of_the_driver_stays_flat_from_4_to_32_workers(
    photos: Path,
    tmp_path: Path,
    drive: Callable[..., Driver],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CPU time of the driver over some steps on 64 images, by 4 and by 32 workers.

    It looks at files five times a second, so seconds of training are what costs, and no workers.
    """
    raw = endless(photos)
    raw["data"]["batch_size"] = 64
    file = tiny.write(raw, tmp_path / "tiny.yaml")
    with RayCluster() as cluster:
        for name, value in cluster.environment.items():
            monkeypatch.setitem(processes.ENVIRONMENT, name, value)
        for _ in range(NODES):
            cluster.add(CPUS)

        def cost(workers: int) -> tuple[float, float]:
            """CPU seconds of the driver, and of the controller, a second of training."""
            words = ("--runs", str(tmp_path), "--name", str(workers), "--workers", str(workers))
            driver = drive("train", str(file), *words)
            run = Run(tmp_path / str(workers))
            assert wait_for(lambda: step_of(run) > 2, START_SECONDS), driver.words()
            (controller,) = (p for p in cluster.processes() if "TrainController" in p.command())
            watched = (Process(driver.process.pid, 0), controller)
            first, start = step_of(run), time.monotonic()
            before = [cpu_seconds(process) for process in watched]
            assert wait_for(lambda: step_of(run) >= first + STEPS, START_SECONDS), driver.words()
            seconds = time.monotonic() - start
            spent = [cpu_seconds(p) - b for p, b in zip(watched, before, strict=True)]
            driver.process.send_signal(signal.SIGTERM)
            assert driver.end() == 130
            print(f"{workers} workers: {STEPS} steps in {seconds:.1f} s, CPU seconds {spent}")
            return spent[0] / seconds, spent[1] / seconds

        few, many = cost(4), cost(32)
    assert many[0] < 2 * few[0] + 0.02
    assert many[1] < 0.5
