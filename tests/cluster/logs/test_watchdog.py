"""Workers that hang: real processes that sleep, are stopped, or wait for each other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from cluster import worker
from cluster.logs import process_log, watchdog
from cluster.logs.watchdog import EXIT_STALLED, Beat
from cluster.training.steps import Steps
from cluster.worker import Host
from gencomp.system import Progress
from tests import tiny
from tests.processes import ENVIRONMENT, ROOT, Driver
from tests.waiting import PATIENCE

_GUARDED = """
import sys, time
from pathlib import Path
from cluster.logs.process_log import journal
from cluster.logs.watchdog import watchdog

run, patience = Path(sys.argv[1]), None
with journal(run, rank=2) as journal, watchdog(journal, 2, 1.0, patience) as beat:
    journal.step = 5
    beat("training")
"""
_RANK = """
import sys, threading
import torch.distributed as dist
from cluster.runs import open_run
from cluster.training.worker_info import WorkerInfo
from cluster.training.steps import Steps
from cluster.worker import Host, train

path, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dist.init_process_group(
    "gloo", store=dist.FileStore(path + ".store", world), rank=rank, world_size=world
)
step = Steps.step

def blocked(self, progress, next_batch):
    if progress.step == 4 and rank == world - 1:
        threading.Event().wait()
    yield from step(self, progress, next_batch)

Steps.step = blocked
# Two steps without haste: much is imported late, which takes long on a busy machine.
left = iter(range(2))
train(open_run(path), WorkerInfo(rank, world), Host(should_stop=lambda: next(left, None) is None))
train(open_run(path), WorkerInfo(rank, world), Host(stall_seconds=5.0))
"""


def begin(script: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stalled(run: Path, rank: int) -> list[dict[str, Any]]:
    lines = process_log.of_rank(run, rank).read_text().splitlines()
    return [row for row in map(json.loads, lines) if row.get("event") == "stalled"]


def test_sleeping(tmp_path: Path) -> None:
    """The sentence says who, where and when; the stack tells the rest."""
    process = begin(_GUARDED + "    time.sleep(600)\n", tmp_path)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == EXIT_STALLED
    (row,) = stalled(tmp_path, 2)
    assert row["level"] == "CRITICAL" and row["step"] == 5 and row["pid"] == process.pid
    path = tmp_path / "logs" / "rank-00002.jsonl"
    assert row["message"] == (
        f"rank 2 (process {process.pid} on {row['host']}) made no progress for 1 s after step 5"
        f" (training): it is in <module> (<string>:11); the stacks of its threads are in {path}"
    )
    assert row["message"] in said
    assert 'File "<string>", line 11 in <module>' in row["stack"]
    assert "watchdog.py" in row["stack"]


def test_progress_keeps_it_alive_and_so_does_a_late_one(tmp_path: Path) -> None:
    code = """
    for _ in range(150):
        time.sleep(0.01)
        beat("training")
    while "stalled" not in journal.path.read_text():
        time.sleep(0.01)
    for _ in range(150):
        time.sleep(0.01)
        beat("training")
"""
    patient = _GUARDED.replace("None", "600.0")
    process = begin(patient + code, tmp_path)
    assert process.wait(timeout=PATIENCE) == 0
    assert len(stalled(tmp_path, 2)) == 1


def test_a_process_that_was_stopped_is_not_stuck(tmp_path: Path) -> None:
    process = begin(_GUARDED + '    print("go", flush=True)\n    time.sleep(0.2)\n', tmp_path)
    assert process.stdout is not None and process.stdout.readline() == "go\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(2.5)  # longer than the 1 s after which the watchdog ends what is stuck
    process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=PATIENCE) == 0
    assert stalled(tmp_path, 2) == []


def test_the_loop_in_this_process(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step hangs until the process would be ended."""
    hangs, ended, codes = threading.Event(), threading.Event(), []
    step = Steps.step

    def blocked(self: Steps, progress: Progress, next_batch: Any) -> Iterator[Any]:
        if progress.step == 4:
            hangs.set()
            ended.wait()
        yield from step(self, progress, next_batch)

    def end(code: int) -> None:
        codes.append(code)
        if hangs.is_set():  # on a busy machine any step may take as long
            ended.set()

    monkeypatch.setattr(Steps, "step", blocked)
    monkeypatch.setattr(worker, "watchdog", partial(watchdog.watchdog, patience=0.1))
    monkeypatch.setattr(watchdog.os, "_exit", end)
    run, _ = tiny.trained(tmp_path / "run", tiny.generator(photos), Host(stall_seconds=1.0))
    assert set(codes) == {EXIT_STALLED}
    row = next(row for row in stalled(run.path, 0) if row["step"] == 4)
    assert "after step 4 (training): it is in wait (threading.py:" in row["message"]
    assert "in blocked\n" in row["stack"]


def test_all_parts_of_the_loop_beat(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[str] = []

    @contextmanager
    def listening(*arguments: Any) -> Iterator[Beat]:
        yield beats.append

    monkeypatch.setattr(worker, "watchdog", listening)
    tiny.trained(tmp_path / "run", tiny.generator(photos))
    assert [what for what, _ in groupby(beats) if what != "training"] == [
        "checkpoint",  # step 4
        "evaluation",
        "sample grid",
        "checkpoint",  # step 8
        "evaluation",
        "sample grid",
        "finalise",
        "evaluation",
        "checkpoint",
        "end",
    ]
    # Two images in a batch of 8 and 4 of 12, three times; 64 samples of 8 behind the statistics.
    assert (beats.count("evaluation"), beats.count("finalise")) == (3 * 3, 8)
    assert beats.count("training") >= 2 * 12


@pytest.mark.slow
def test_two_ranks_of_which_one_hangs(photos: Path, tmp_path: Path) -> None:
    """Both end, and both say where they were: one in its data, one in a collective."""
    run = tiny.started(tmp_path / "run", tiny.generator(photos))
    ranks = [begin(_RANK, run.path, rank, 2) for rank in range(2)]
    try:
        for process in ranks:
            process.communicate(timeout=PATIENCE)
    finally:
        for process in ranks:
            process.kill()
    # Whichever is second may see the other one leave before its own time is up.
    codes = [process.returncode for process in ranks]
    assert EXIT_STALLED in codes and 0 not in codes
    waiting, hanging = (stalled(run.path, rank)[0] for rank in range(2))
    assert hanging["step"] == 4 and "in wait (threading.py:" in hanging["message"]
    assert "in wait\n" in hanging["stack"] and "in blocked\n" in hanging["stack"]
    assert waiting["step"] == 4 and "in _update\n" in waiting["stack"]


@pytest.mark.slow
def test_the_driver_names_who_hangs_and_goes_on(
    photos: Path, tmp_path: Path, drive: Callable[..., Driver]
) -> None:
    """A worker is stopped (SIGSTOP): the other one waits for it, and tells; both are replaced."""
    raw = tiny.generator(photos, {"training.steps": 60, "training.sample_every": 1000})
    file = tiny.write(raw, tmp_path / "tiny.yaml")
    words = ("train", str(file), "--runs", str(tmp_path / "runs"), "--workers", "2")
    run = tmp_path / "runs" / "tiny"
    driver = drive(*words, "--stall-seconds", "20")
    driver.wait_for(lambda: '"step": 10' in text(run / "metrics.jsonl"))
    started = [row for row in read(process_log.of_rank(run, 1)) if row.get("event") == "start"]
    os.kill(started[-1]["pid"], signal.SIGSTOP)
    assert driver.end() == 0, driver.words()
    out = driver.out.read_text()
    (line,) = [line for line in out.splitlines() if "made no progress" in line]
    assert "driver: WARNING: rank 0 (process" in line and "made no progress for 20 s" in line
    assert f"the stacks of its threads are in {process_log.of_rank(run, 0)}" in line
    assert f"rank 1 (process {started[-1]['pid']} on" in line and "says nothing" in line
    assert "attempt starts from step" in out.partition(line)[2]
    events = [row["event"] for row in read(process_log.of_driver(run))]
    assert events == ["start", "workers_failed", "end"]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text(path).splitlines()]


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
