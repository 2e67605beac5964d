"""`gencomp train` under Ray Train, by real processes that are really killed."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.checkpoints import store
from cluster.logs import json_lines
from cluster.runs import Run
from gencomp.cli import main
from tests import tiny
from tests.conftest import ROOT
from tests.processes import ENVIRONMENT, Driver, gone, kill, listening
from tests.waiting import PATIENCE

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


_RANK = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
from cluster.runs import open_run
from cluster.training.worker_info import WorkerInfo
from cluster.worker import Host, train

path, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store = dist.FileStore(path + ".store", world)
dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
train(open_run(path), WorkerInfo(rank, world), Host())
dist.destroy_process_group()
"""


def straight(path: Path, raw: dict[str, Any], world: int) -> Run:
    """The same run without interruption and without Ray: plain gloo processes."""
    run = tiny.started(path, raw)
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", _RANK, str(path), str(rank), str(world)],
            cwd=ROOT,
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        errors = [rank.communicate(timeout=PATIENCE)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert all(rank.returncode == 0 for rank in ranks), "\n".join(errors)
    return run


def step_of(run: Run) -> int:
    """Newest step in the log, 0 when there is none."""
    return max((row["step"] for row in json_lines.read(run.metrics)), default=0)


def reached(run: Run, driver: Driver, step: int) -> bool:
    """Whether the workers of this driver have logged a step (not those of an earlier one)."""
    return driver.started < _changed(run.metrics) and step_of(run) >= step


def _changed(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def recipe(photos: Path) -> dict[str, Any]:
    return tiny.generator(photos, {"training.steps": 120, "training.sample_every": 1000})


@pytest.mark.long
def test_killed_and_resumed(
    photos: Path, tmp_path: Path, drive: Callable[..., Driver], capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 of a worker, driver and controller, and damage: an untouched run's bits."""
    chance = random.Random(5)
    raw = recipe(photos)
    file = tiny.write(raw, tmp_path / "tiny.yaml")
    words = ("train", str(file), "--runs", str(tmp_path / "runs"), "--workers", "2")
    run = Run(tmp_path / "runs" / "tiny")
    step = chance.randint(3, 12)

    first = drive(*words)
    first.wait_for(lambda: reached(run, first, step))
    workers = first.workers()
    assert len(workers) == 2
    # Torch's store and gloo, in the workers, included.
    assert set() < listening(first.look()) <= LOOPBACK

    # A second run in the same directory is refused at once, and the first does not notice.
    assert main(list(words)) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(rf"gencomp: error: .* in use by process {first.process.pid} on .*\n", said)

    os.kill(chance.choice(workers).pid, signal.SIGKILL)
    first.wait_for(lambda: len(new := first.workers()) == 2 and not set(new) & set(workers))
    step = chance.randint(30, 45)
    first.wait_for(lambda: reached(run, first, step))
    first.crash()
    assert run.result() is None

    # The newest checkpoint is damaged meanwhile: it is named, and the one before it taken.
    saved = store.newest(run.checkpoints)
    assert saved is not None
    tiny.flip(saved.path / store.NETWORKS)
    second = drive(*words)
    second.wait_for(lambda: reached(run, second, saved.step + 2))
    kill(next(p for p in second.look() if p.command().startswith("ray::TrainController")))
    assert second.end() == 0, second.words()
    assert second.out.read_text().count("controller of the workers died; training is started") == 1
    assert "is finished" in second.out.read_text()
    (line,) = second.err.read_text().splitlines()
    assert line.startswith(f"checkpoint rejected: {saved.path / store.NETWORKS} does not match")

    untouched = straight(tmp_path / "straight", raw, 2)
    tiny.assert_identical(tiny.state(run), tiny.state(untouched))
    assert tiny.result(run) == tiny.result(untouched)
    assert tiny.rows(run) == tiny.rows(untouched)
    assert gone(first.seen), [p.command() for p in first.seen if p.alive()]


@pytest.mark.slow
def test_a_damaged_sample_stops_the_run_with_its_name(
    photos: Path, tmp_path: Path, drive: Callable[..., Driver]
) -> None:
    """One rank meets it, the other waits in a collective: one sentence, exit 2, no second try."""
    import numpy as np

    import shards
    from shards.reading.order import EpochOrder

    data = Path(shutil.copytree(photos, tmp_path / "photos"))
    raw = recipe(data)
    split = shards.open_set(data).split("train")
    row = int(
        EpochOrder(split.key_hash, raw["training"]["seed"], len(split)).rows(np.array([21]))[0]
    )
    shard, key, offset = split.place(row)
    tiny.flip(data / shard, offset + 100)
    file = tiny.write(raw, tmp_path / "tiny.yaml")

    driver = drive("train", str(file), "--runs", str(tmp_path / "runs"), "--workers", "2")
    assert driver.end() == 2
    (line,) = driver.err.read_text().splitlines()
    assert line.startswith("gencomp: error: ")
    assert f"{shard}, key {key!r}, byte {offset}: the sample has changed" in line
    run = Run(tmp_path / "runs" / "tiny")
    assert step_of(run) <= 2 and run.result() is None

    # Once it is mended, the same command goes on.
    shutil.copy(photos / shard, data / shard)
    assert tiny.trained(run.path, raw)[1].finished


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_many_kills_with_three_workers(
    seed: int, photos: Path, tmp_path: Path, drive: Callable[..., Driver]
) -> None:
    chance = random.Random(seed)
    raw = recipe(photos) | {"optimizer": {"decay_epochs": [3, 6], "decay_factor": 0.5}}
    file = tiny.write(raw, tmp_path / "tiny.yaml")
    words = ("train", str(file), "--runs", str(tmp_path / "runs"), "--workers", "3")
    run = Run(tmp_path / "runs" / "tiny")
    at = sorted(chance.sample(range(2, 110), 6))
    for worker_step, driver_step in zip(at[::2], at[1::2], strict=True):
        driver = drive(*words)
        driver.wait_for(lambda d=driver, s=worker_step: reached(run, d, s))
        old = driver.workers()
        os.kill(chance.choice(old).pid, signal.SIGKILL)
        driver.wait_for(
            lambda o=old, d=driver: len(new := d.workers()) == 3 and not set(new) & set(o)
        )
        driver.wait_for(lambda d=driver, s=driver_step: reached(run, d, s))
        driver.crash()
    last = drive(*words)
    assert last.end() == 0, last.words()
    untouched = straight(tmp_path / "straight", raw, 3)
    tiny.assert_identical(tiny.state(run), tiny.state(untouched))
    assert tiny.rows(run) == tiny.rows(untouched)
