"""A run that is disturbed: its processes, where it is, and the command that starts it again."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from cluster.logs import json_lines, process_log
from cluster.runs import Run
from tests.chaos.disk import Disk
from tests.cluster.ray_clusters import Node, RayCluster
from tests.processes import ENVIRONMENT, ROOT, Driver, Process, descendants, is_worker
from tests.waiting import PATIENCE, wait_for

_PATIENCE = 3 * PATIENCE  # an allocation, Ray in it and its workers


class Attempt(NamedTuple):
    """A start of the workers, as rank 0 tells of it: when, from which step, of how many."""

    time: float
    step: int
    world: int


class Recorded(Driver):
    """A command line whose workers record the samples of their steps."""

    def __init__(
        self, words: list[str], folder: Path, samples: Path, environment: dict[str, str]
    ) -> None:
        self.out, self.err = folder / "out", folder / "err"
        self.seen: set[Process] = set()
        self.started = time.time()
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.recording", str(samples), *words],
                cwd=ROOT,
                env=ENVIRONMENT | environment,
                stdout=out,
                stderr=err,
            )


@dataclass
class Scene:
    """What faults act on.

    Attributes:
        folder: for everything that is no part of the run.
        recipe: the recipe's file.
        run: its directory.
        chance: of all that is random.
        worlds: --workers of one start after the other.
        disk: of the run, where it has one that can be filled.
        cluster: that its commands join; None: each has one of its own.
        nodes: of the cluster, with one CPU each.
        command, options: its first words and its last ones.
        reached: the furthest step since the last fault.
    """

    folder: Path
    recipe: Path
    run: Run
    chance: random.Random
    worlds: Iterator[str]
    disk: Disk | None = None
    cluster: RayCluster | None = None
    nodes: list[Node] = field(default_factory=list)
    command: tuple[str, ...] = ("train",)
    options: tuple[str, ...] = ()
    reached: int = 0

    def __post_init__(self) -> None:
        self.samples = self.folder / "samples"
        self.samples.mkdir()
        self._numbers = count()
        self._stack = ExitStack()
        self._driver: Driver | None = None

    @property
    def driver(self) -> Driver:
        assert self._driver is not None
        return self._driver

    def start(self) -> None:
        """The same command, for the first time or again."""
        self.look()
        folder = self.folder / f"driver{next(self._numbers)}"
        folder.mkdir()
        words = [*self.command, str(self.recipe), "--runs", str(self.run.path.parent)]
        words += ["--name", self.run.name, "--workers", next(self.worlds), *self.options]
        self._driver = self._started(words, folder)
        self._stack.callback(self._driver.close)

    def _started(self, words: list[str], folder: Path) -> Driver:
        environment = {} if self.cluster is None else self.cluster.environment
        return Recorded(words, folder, self.samples, environment)

    def close(self) -> None:
        self._stack.close()

    def workers(self) -> list[Process]:
        """Processes of the run's workers, also below a cluster that this process started."""
        below = descendants(os.getpid())
        return sorted(p for p in below if is_worker(p))

    def training(self) -> list[Process]:
        """Those of the newest attempt, by rank; older ones may still die beside them."""
        attempt = self.attempt()
        world = 0 if attempt is None else attempt.world
        starts = (
            next(_starts(process_log.of_rank(self.run.path, rank)), None) for rank in range(world)
        )
        found = [self._process(start) for start in starts if start is not None]
        return [process for process in found if process is not None]

    def _process(self, start: dict[str, Any]) -> Process | None:
        """The process of a worker that tells of its start; None if it has ended."""
        everybody = {process.pid: process for process in descendants(0)}  # also those of Slurm
        return everybody.get(start["pid"])

    def attempt(self) -> Attempt | None:
        """The newest start of the workers."""
        row = next(_starts(process_log.of_rank(self.run.path, 0)), None)
        if row is None:
            return None
        return Attempt(datetime.fromisoformat(row["time"]).timestamp(), row["step"], row["world"])

    def look(self) -> int:
        """The newest step in the metrics log; `reached` remembers the furthest."""
        newest = next(json_lines.newest_first(self.run.metrics), None)
        step = 0 if newest is None else int(newest["step"])
        self.reached = max(self.reached, step)
        return step

    def first_step(self, attempt: Attempt) -> float | None:
        """When an attempt ended its first step, if it did yet."""
        for row in json_lines.read(self.run.metrics):
            if row["step"] == attempt.step + 1 and row["time"] >= attempt.time:
                return float(row["time"])
        return None

    def wait_for_step(self, step: int) -> None:
        """Until the log has a step; the run must not end before."""
        process = self.driver.process
        wait_for(lambda: self.look() >= step or process.poll() is not None, _PATIENCE)
        assert self.look() >= step and process.poll() is None, self.driver.words()

    def wait_for_recovery(self, since: float) -> tuple[Attempt, float]:
        """The first attempt after a time that ends a step, and when that was."""
        found: list[tuple[Attempt, float]] = []

        def recovered() -> bool:
            attempt = self.attempt()
            if attempt is None or attempt.time < since:
                self.look()
                return False
            at = self.first_step(attempt)
            if at is not None:
                found.append((attempt, at))
            return bool(found)

        # The driver may end and be started by the fault itself; then this waits for the new one.
        assert wait_for(
            lambda: recovered() or self.driver.process.poll() is not None, _PATIENCE, 0.02
        ), f"no step after the fault\n{self.driver.words()}"
        assert found, self.driver.words()
        return found[0]


def _starts(log: Path) -> Iterator[dict[str, Any]]:
    """Lines in which a worker says that it begins, newest first."""
    return (row for row in json_lines.newest_first(log) if row.get("event") == "start")
