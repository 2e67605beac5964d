"""A run that a Slurm across hosts trains, seen from the host that submits it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.runs import Run
from tests import tiny
from tests.cluster.ray_train.test_train import straight
from tests.hosts.slurm_nodes import SlurmNodes
from tests.processes import Process
from tests.slurm.test_real_training import log_of, starts, step_of
from tests.waiting import wait_for

SUBMITS = "n1"


def command(*words: str) -> tuple[str, ...]:
    """The command `gencomp` with words."""
    return (sys.executable, "-m", "gencomp.cli", *words)


@dataclass(frozen=True)
class SlurmRun:
    """A run in a folder that all hosts share, with its recipe beside it."""

    cluster: SlurmNodes
    folder: Path
    recipe: dict[str, Any]

    @property
    def run(self) -> Run:
        return Run(self.folder / "runs" / "tiny")

    def submit(self, *words: str) -> None:
        """`gencomp slurm train` of the recipe."""
        file = tiny.write(self.recipe, self.folder / "tiny.yaml")
        self.gencomp("slurm", "train", str(file), "--runs", str(self.folder / "runs"), *words)

    def gencomp(self, *words: str) -> str:
        """What a command prints on the host that submits."""
        return self.cluster.hosts.run(SUBMITS, *command(*words), **self.options).stdout

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command on the host that submits."""
        return self.cluster.hosts.start(SUBMITS, *command(*words), **self.options, **options)

    @property
    def options(self) -> dict[str, Any]:
        return {"env": self.cluster.variables}

    def until(self, condition: Callable[[], object]) -> None:
        """Return when a condition is true, which some job in the queue must bring about."""

        def true_or_over() -> bool:
            return bool(condition()) or not self.jobs()

        assert wait_for(true_or_over, pause=0.1), self.words()
        assert condition(), self.words()

    def until_over(self) -> None:
        """Return when there are no jobs any more."""
        assert wait_for(lambda: not self.jobs(), pause=0.2), self.words()

    def jobs(self) -> list[str]:
        """The states of the jobs in the queue."""
        return self.cluster.run("squeue", "-h", "-o", "%T").split()

    def drivers(self, host: str) -> set[Process]:
        """The processes `gencomp train` on a host."""
        return {p for p in self.cluster.of_node(host) if "gencomp.cli train" in p.command()}

    def words(self) -> str:
        """What Slurm and the newest job have to say."""
        return self.cluster.run("squeue", "--states=all") + log_of(self.run.path)

    @contextmanager
    def frozen(self, start: int, step: int) -> Iterator[str]:
        """Rank 0, at a start, is stopped behind a step until the body ends; yields its host."""
        self.until(lambda: len(starts(self.run)) == start and step_of(self.run) >= step)
        row = starts(self.run)[-1]
        host, pid = row["host"], str(row["pid"])
        self.cluster.hosts.run(host, "kill", "-STOP", pid)
        assert self.run.result() is None
        try:
            yield host
        finally:
            if self.cluster.hosts.has_power(host):
                self.cluster.hosts.run(host, "kill", "-CONT", pid, check=False)

    def assert_same_as_on_one_host(self, workers: int) -> None:
        """The run has the bits of an undisturbed one whose workers share this machine."""
        untouched = straight(self.folder / "straight", self.recipe, workers)
        tiny.assert_identical(tiny.state(self.run), tiny.state(untouched))
        assert tiny.rows(self.run) == tiny.rows(untouched)
