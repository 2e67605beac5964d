"""Clusters on one machine do not meet, and one that ends leaves the others alone."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.runs import Run
from tests import processes, tiny
from tests.cluster.ray_clusters import RayCluster
from tests.cluster.ray_train.test_scaling import endless, step_of
from tests.processes import Driver


@pytest.mark.slow
def test_three_clusters(
    photos: Path,
    tmp_path: Path,
    drive: Callable[..., Driver],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two trainings and a stranger's cluster; one training ends by SIGTERM, one by kill -9."""
    file = tiny.write(endless(photos), tmp_path / "tiny.yaml")
    with RayCluster() as foreign:
        foreign.add(cpus=2)
        # Ray leaves the address there for whoever looks for a cluster, and we would find it.
        address = foreign.directory / "ray" / "ray_current_cluster"
        assert address.read_text() == foreign.environment["RAY_ADDRESS"]
        monkeypatch.setitem(processes.ENVIRONMENT, "RAY_TMPDIR", str(foreign.directory))
        monkeypatch.delitem(processes.ENVIRONMENT, "RAY_ADDRESS", raising=False)

        def train(name: str) -> tuple[Driver, Run]:
            runs = tmp_path / "runs"
            return drive("train", str(file), "--runs", str(runs), "--name", name), Run(runs / name)

        strangers = foreign.processes()
        one, other = train("one"), train("other")
        for driver, run in (one, other):
            driver.wait_for(lambda d=driver, r=run: step_of(r) > 5 and len(d.workers()) == 1)
        assert not foreign.workers()

        one[0].process.send_signal(signal.SIGTERM)
        assert one[0].end() == 130
        then = step_of(other[1])
        other[0].wait_for(lambda: step_of(other[1]) > then + 20)
        other[0].crash()
        assert all(process.alive() for process in strangers)
        assert address.read_text() == foreign.environment["RAY_ADDRESS"]
        foreign.add(cpus=1)  # it still works
