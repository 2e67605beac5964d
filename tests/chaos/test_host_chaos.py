"""A run on a Slurm across hosts that lose their power, their cables and their allocation."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from cluster.runs import Run
from tests import tiny
from tests.chaos import host_faults, slurm_faults
from tests.chaos.scene import Scene
from tests.chaos.slurm_faults import on
from tests.chaos.test_chaos import recipe
from tests.chaos.test_slurm_chaos import assert_survives
from tests.hosts.conftest import slurm_nodes  # noqa: F401
from tests.hosts.slurm_nodes import SlurmNodes
from tests.hosts.slurm_runs import SUBMITS, command
from tests.processes import Driver, Process

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
]

KINDS: tuple[Callable[[Scene, SlurmNodes], None], ...] = (
    host_faults.cut_power,
    host_faults.pull_cable,
    slurm_faults.requeue,
)
ROUNDS = 3


class Submitter(Driver):
    """A command on the host that submits."""

    def __init__(self, cluster: SlurmNodes, words: list[str], folder: Path) -> None:
        self.out, self.err = folder / "out", folder / "err"
        self.seen: set[Process] = set()
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process: subprocess.Popen[str] = cluster.hosts.start(
                SUBMITS, *command(*words), env=cluster.variables, stdout=out, stderr=err
            )


@dataclass
class HostScene(Scene):
    """A run on a Slurm across hosts.

    Attributes:
        slurm: that Slurm.
    """

    slurm: SlurmNodes | None = None

    def _started(self, words: list[str], folder: Path) -> Driver:
        assert self.slurm is not None
        return Submitter(self.slurm, words, folder)

    def _process(self, start: dict[str, Any]) -> Process | None:
        assert self.slurm is not None
        return self.slurm.process(start["host"], start["pid"])


def test_hosts_come_and_go(
    photos: Path,
    tmp_path: Path,
    slurm_nodes: SlurmNodes,  # noqa: F811
) -> None:
    raw = recipe(photos, ROUNDS)
    made = HostScene(
        tmp_path,
        tiny.write(raw, tmp_path / "chaos.yaml"),
        Run(tmp_path / "runs" / "chaos"),
        random.Random(7),
        repeat("2"),
        command=("slurm", "train"),
        options=("--nodes", "2", "--cpus-per-task", "1", "--time", "60", "--wait"),
        slurm=slurm_nodes,
    )
    assert_survives(made, [on(slurm_nodes, kind) for kind in KINDS], raw, ROUNDS)
