"""A run in Slurm allocations that are taken away again and again: `gencomp slurm train`."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from cluster.runs import Run
from tests import tiny
from tests.chaos import recovery, slurm_faults
from tests.chaos.faults import Fault
from tests.chaos.scene import Scene
from tests.chaos.slurm_faults import SlurmFault, on
from tests.chaos.test_chaos import assert_cheap, assert_like_undisturbed, recipe, report, shuffled
from tests.cluster.ray_train.test_train import straight
from tests.processes import ENVIRONMENT
from tests.slurm_cluster import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(3600)]

KINDS: tuple[SlurmFault, ...] = (
    slurm_faults.requeue,
    slurm_faults.preempt,
    slurm_faults.set_node_down,
    slurm_faults.cancel,
)


def assert_survives(
    scene: Scene, faults: Sequence[Fault], raw: dict[str, Any], rounds: int
) -> None:
    """A job of two workers that meets the faults in turn ends like an undisturbed run, cheaply."""
    with ThreadPoolExecutor(1) as pool:
        untouched = pool.submit(straight, scene.folder / "straight", raw, 2)
        try:
            scene.start()
            recoveries = recovery.disturb(scene, shuffled(scene.chance, faults, rounds))
            assert scene.driver.end() == 0, scene.driver.words()
        finally:
            scene.close()
        report(recoveries)
        assert_like_undisturbed(scene.run, untouched.result())
    assert_cheap(recoveries)


def test_allocations_come_and_go(
    photos: Path,
    tmp_path: Path,
    slurm_cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The warning of a time limit is that of a preemption."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setitem(ENVIRONMENT, name, os.environ[name])
    rounds = 8
    raw = recipe(photos, rounds)
    asked = ("--nodes", "1", "--cpus-per-task", "2", "--partition", "low", "--wait")
    made = Scene(
        tmp_path,
        tiny.write(raw, tmp_path / "chaos.yaml"),
        Run(tmp_path / "runs" / "chaos"),
        random.Random(6),
        repeat("2"),
        command=("slurm", "train"),
        options=(*asked, "--time", "60"),
    )
    assert_survives(made, [on(slurm_cluster, kind) for kind in KINDS], raw, rounds)
