"""Workers that become fewer and more, on a real Ray cluster whose nodes are killed and added.

With a learning rate far below what a float32 weight can notice the loss of a step depends on its
samples and draws alone. So a row of the metrics log proves which samples a step took, whatever
happened before and however many workers shared them.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster import ray_runtime
from cluster.logs import json_lines, process_log
from cluster.runs import Run
from gencomp.cli import main
from tests import processes, tiny
from tests.cluster.ray_clusters import Node, RayCluster
from tests.processes import Driver
from tests.waiting import wait_for

WAITING = "waiting for 2 workers of 1 CPU each: the cluster has room for 1"


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A cluster that command lines join."""
    with RayCluster() as started, pytest.MonkeyPatch.context() as patch:
        for name, value in started.environment.items():
            patch.setitem(processes.ENVIRONMENT, name, value)
        yield started


@pytest.fixture
def add(cluster: RayCluster) -> Iterator[Callable[[], Node]]:
    """Adds nodes with one CPU each, which are lost when the test ends."""
    nodes: list[Node] = []

    def one() -> Node:
        nodes.append(cluster.add(cpus=1))
        return nodes[-1]

    yield one
    for node in nodes:
        cluster.remove(node)


def endless(photos: Path) -> dict[str, Any]:
    """Recipe of a run that never ends by itself and learns nothing."""
    quiet = {"training.steps": 10**6, "training.sample_every": 10**6, "evaluation.every": 10**6}
    return tiny.generator(photos, quiet | {"optimizer.learning_rate": 1e-12})


def start(
    drive: Callable[..., Driver], raw: dict[str, Any], folder: Path, workers: str
) -> tuple[Driver, Run]:
    file = tiny.write(raw, folder / "tiny.yaml")
    words = ("--runs", str(folder / "runs"), "--workers", workers, "--max-failures", "5")
    return drive("train", str(file), *words), Run(folder / "runs" / "tiny")


def step_of(run: Run) -> int:
    return next((row["step"] for row in json_lines.newest_first(run.metrics)), 0)


def worlds(run: Run) -> list[int]:
    """How many workers each attempt had."""
    rows = json_lines.read(process_log.of_rank(run.path, 0))
    return [row["world"] for row in rows if row.get("event") == "start"]


def said(run: Run) -> list[str]:
    return [row["message"] for row in json_lines.read(process_log.of_driver(run.path))]


def trains(driver: Driver, run: Run, *, attempts: list[int], steps: int = 20) -> None:
    """Wait until the last of these attempts has trained for some steps."""
    driver.wait_for(lambda: worlds(run) == attempts)
    first = json_lines.read(process_log.of_rank(run.path, 0))[-1]["step"]
    driver.wait_for(lambda: step_of(run) > first + steps)


def assert_every_sample_once(run: Run, raw: dict[str, Any], folder: Path) -> None:
    """The log has each step once, with the loss that an undisturbed run has there."""
    found = tiny.losses(run)
    steps = [row["step"] for row in tiny.rows(run) if "generator/loss" in row]
    assert steps == list(range(1, len(steps) + 1))
    undisturbed = raw | {"training": raw["training"] | {"steps": len(steps)}}
    expected = np.array(tiny.losses(tiny.trained(folder / "undisturbed", undisturbed)[0]))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    # Other samples would show.
    assert np.median(np.abs(np.diff(expected) / expected[1:])) > 0.1


@pytest.mark.long
def test_too_small_a_cluster_is_named_and_waiting_may_be_stopped(
    photos: Path,
    tmp_path: Path,
    drive: Callable[..., Driver],
    add: Callable[[], Node],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add()
    driver, run = start(drive, endless(photos), tmp_path, "2")
    driver.wait_for(lambda: f"WARNING: {WAITING}" in driver.out.read_text())
    driver.process.send_signal(signal.SIGTERM)
    assert driver.end() == 130
    assert worlds(run) == [] and said(run).count(WAITING) == 1

    # In an allocation no node will ever come.
    monkeypatch.setitem(processes.ENVIRONMENT, ray_runtime.COMPLETE, "1")
    driver, run = start(drive, endless(photos), tmp_path, "2")
    assert driver.end() == 2
    text = "--workers 2 needs 2 CPUs, and this allocation has 1: start fewer, or ask for more"
    assert driver.err.read_text() == f"gencomp: error: {text}\n"


@pytest.mark.slow
def test_fewer_and_more_workers(
    photos: Path,
    tmp_path: Path,
    drive: Callable[..., Driver],
    cluster: RayCluster,
    add: Callable[[], Node],
) -> None:
    """A node dies under 1..2 workers, another one comes: no sample is lost or comes twice."""
    raw = endless(photos)
    node, _ = add(), add()
    driver, run = start(drive, raw, tmp_path, "1..2")
    trains(driver, run, attempts=[2])
    cluster.remove(node)
    trains(driver, run, attempts=[2, 1])
    add()
    trains(driver, run, attempts=[2, 1, 2])
    driver.process.send_signal(signal.SIGTERM)
    assert driver.end() == 130
    assert "stopped at a checkpoint" in driver.out.read_text() and not run.stop_request.exists()
    assert not cluster.workers()

    for text in ("training goes on with 1 worker instead of 2", "with 2 workers instead of 1"):
        assert any(text in line for line in said(run)) and text in driver.out.read_text()
    # Growing was no failure, and cost no step: the workers left at a checkpoint.
    events = [
        row["event"] for row in json_lines.read(process_log.of_driver(run.path)) if "event" in row
    ]
    assert events == ["start", "workers_failed", "resized", "resized", "end"]
    first, second, third, _ = (
        row["step"]
        for row in json_lines.read(process_log.of_rank(run.path, 0))
        if row.get("event") == "end" or row["message"].endswith("of 2 on cpu")
    )
    assert first == 0 < second == third
    assert_every_sample_once(run, raw, tmp_path)


@pytest.mark.slow
def test_a_fixed_number_waits_for_its_nodes(
    photos: Path,
    tmp_path: Path,
    drive: Callable[..., Driver],
    cluster: RayCluster,
    add: Callable[[], Node],
) -> None:
    """Too few nodes at the start, then one dies, and another one, under which it is stopped.

    A driver that is killed leaves nothing on the cluster.
    """
    raw = endless(photos)
    add()
    driver, run = start(drive, raw, tmp_path, "2")
    driver.wait_for(lambda: said(run).count(WAITING) == 1)
    node = add()
    trains(driver, run, attempts=[2])
    cluster.remove(node)
    driver.wait_for(lambda: said(run).count(WAITING) == 2)
    node = add()
    trains(driver, run, attempts=[2, 2])
    cluster.remove(node)
    driver.wait_for(lambda: said(run).count(WAITING) == 3)
    driver.process.send_signal(signal.SIGTERM)
    assert driver.end() == 130

    add()
    again, _ = start(drive, raw, tmp_path, "2")
    trains(again, run, attempts=[2, 2, 2], steps=10)
    again.crash()
    assert wait_for(lambda: not cluster.workers(), pause=0.5)
    assert_every_sample_once(run, raw, tmp_path)


@pytest.mark.parametrize(
    ("workers", "said"),
    [
        ("2..1", "--workers 2..1: the first number must not be above the second"),
        ("2..", "--workers INT or INT..INT: '2..' is neither"),
        ("1..9", "data.batch_size is 8, but there are 9 workers"),
        ("0..2", "data.batch_size is 8, but there are 0 workers"),
    ],
)
def test_numbers_of_workers(
    workers: str, said: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tiny.write(endless(photos), tmp_path / "tiny.yaml")
    assert main(["train", str(file), "--runs", str(tmp_path), "--workers", workers]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gencomp: error: ") and said in line
