"""`gencomp train` with one worker and no Ray, by real processes that are really killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cluster import processes
from cluster.logs import json_lines, process_log
from cluster.logs.watchdog import STALL_SECONDS
from cluster.one_process import pulse
from cluster.one_process.process import WorkerProcess
from cluster.runs import Run
from tests import tiny
from tests.cluster.ray_train.test_train import reached, recipe, step_of
from tests.processes import ENVIRONMENT, Driver, descendants, gone, kill, listening
from tests.waiting import PATIENCE, wait_for


def words(raw: dict[str, Any], folder: Path) -> tuple[Run, list[str]]:
    file = tiny.write(raw, folder / "tiny.yaml")
    return Run(folder / "runs" / "tiny"), ["train", str(file), "--runs", str(folder / "runs")]


def untouched(raw: dict[str, Any], folder: Path) -> Run:
    """The same run, without interruption, in this process."""
    return tiny.trained(folder / "straight", raw, calibration=2048)[0]


def assert_same(one: Run, other: Run) -> None:
    tiny.assert_identical(tiny.state(one), tiny.state(other))
    assert tiny.result(one) == tiny.result(other)
    assert tiny.rows(one) == tiny.rows(other)


def events(run: Run) -> list[str]:
    rows = json_lines.read(process_log.of_driver(run.path))
    return [row["event"] for row in rows if "event" in row]


def test_killed_and_resumed(
    photos: Path, tmp_path: Path, drive: Callable[..., Driver], capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 of the worker, then of the driver, then SIGTERM: an untouched run's bits."""
    raw = recipe(photos)
    run, command = words(raw, tmp_path)
    first = drive(*command)
    first.wait_for(lambda: reached(run, first, 3))
    (worker,) = first.workers()
    assert first.look() == {worker}  # one process, and nothing of Ray
    assert listening({worker}) == set()
    kill(worker)
    first.wait_for(lambda: first.workers() not in ([], [worker]))
    first.wait_for(lambda: step_of(run) >= 20)
    first.process.kill()
    first.process.wait()
    assert gone(first.seen)

    second = drive(*command)
    before = step_of(run)
    second.wait_for(lambda: reached(run, second, before + 2))
    second.process.send_signal(signal.SIGTERM)
    assert second.end() == 130
    assert "stopped at a checkpoint; the same command goes on" in second.out.read_text()

    third = drive(*command)
    assert third.end() == 0, third.words()
    assert third.err.read_text() == ""
    assert_same(run, untouched(raw, tmp_path))
    said = first.out.read_text()
    assert f"rank 0 (process {worker.pid} on {os.uname().nodename}) died: it was killed by" in said
    assert events(run) == ["start", "workers_failed", "start", "end", "start", "end"]


@pytest.mark.slow
def test_ray_goes_on_with_the_run_and_the_other_way_round(
    photos: Path, tmp_path: Path, drive: Callable[..., Driver]
) -> None:
    raw = recipe(photos)
    run, command = words(raw, tmp_path)
    for way in ([], ["--ray"], []):
        driver = drive(*command, *way)
        before = step_of(run)
        driver.wait_for(lambda d=driver, step=before + 2: reached(run, d, step))
        assert any("ray::" in p.command() for p in driver.look()) == bool(way)
        driver.process.send_signal(signal.SIGTERM)
        assert driver.end() == 130
    assert drive(*command).end() == 0
    assert_same(run, untouched(raw, tmp_path))


def test_a_worker_that_hangs_is_replaced(
    photos: Path, tmp_path: Path, drive: Callable[..., Driver]
) -> None:
    """A named pipe in place of a shard keeps the worker waiting until the watchdog ends it."""
    data = Path(shutil.copytree(photos, tmp_path / "photos"))
    raw = recipe(data)
    run, command = words(raw, tmp_path)
    tiny.started(run.path, raw)
    shard = min(data.glob("train-*.tar"))
    shutil.move(shard, tmp_path / shard.name)
    os.mkfifo(shard)
    driver = drive(*command, "--stall-seconds", "10")
    driver.wait_for(lambda: "workers_failed" in events(run))
    shard.unlink()
    shutil.move(tmp_path / shard.name, shard)
    assert driver.end() == 0, driver.words()
    assert "made no progress for 10 s" in driver.out.read_text()


def test_a_worker_whose_interpreter_hangs_is_replaced(
    photos: Path, tmp_path: Path, drive: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Native code that keeps the interpreter stops the watchdog too; the driver hears nothing."""
    (tmp_path / "patch").mkdir()
    hang = tmp_path / "hang"
    (tmp_path / "patch" / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'cluster.one_process' in sys.orig_argv:\n"
        "    import ctypes, os, threading, time\n"
        "    def hang():\n"
        f"        while not os.path.exists({str(hang)!r}):\n"
        "            time.sleep(0.05)\n"
        "        ctypes.PyDLL(None).sleep(3600)\n"
        "    threading.Thread(target=hang, daemon=True).start()\n",
        encoding="utf-8",
    )
    path = os.pathsep.join([str(tmp_path / "patch"), ENVIRONMENT["PYTHONPATH"]])
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", path)
    raw = recipe(photos)
    run, command = words(raw, tmp_path)
    driver = drive(*command, "--stall-seconds", "10")
    driver.wait_for(lambda: reached(run, driver, 3))
    hang.touch()
    driver.wait_for(lambda: "workers_failed" in events(run))
    hang.unlink()
    assert driver.end() == 0, driver.words()
    assert "gave no sign of life for 12 s, so native code holds its interpreter" in driver.words()
    (failed,) = [
        row
        for row in json_lines.read(process_log.of_driver(run.path))
        if row.get("event") == "workers_failed"
    ]
    assert "sitecustomize.py" in failed["said"] and "Fatal Python error" in failed["said"]
    assert_same(run, untouched(raw, tmp_path))


def test_a_stopped_worker_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time in which the driver was stopped does not count, and who is heard again starts anew.

    The listener's clock is the test's own, so that no time passes.
    """
    now = 0.0
    monkeypatch.setattr(pulse, "time", SimpleNamespace(monotonic=lambda: now))
    hears, beats = os.pipe()
    sleeper = subprocess.Popen(["sleep", "600"])
    try:
        listener = pulse.Listener(sleeper.pid, hears, stall_seconds=0.2)
        assert listener.limit == STALL_SECONDS  # as it imports
        os.write(beats, b".")
        assert not listener.is_silent() and listener.limit == 2.2
        os.kill(sleeper.pid, signal.SIGSTOP)
        assert wait_for(lambda: processes.is_stopped(sleeper.pid))
        for _ in range(300):
            now += 0.01
            assert not listener.is_silent()
        os.kill(sleeper.pid, signal.SIGCONT)
        assert wait_for(lambda: not processes.is_stopped(sleeper.pid))
        # A gap between two questions is time in which the driver itself was stopped.
        now += 2.5
        assert not listener.is_silent()
        begun = now
        while not listener.is_silent():
            now += 0.01
            assert now < begun + 3
        assert now > begun + 2
    finally:
        sleeper.kill()
        sleeper.wait()
        os.close(hears)
        os.close(beats)


def test_a_damaged_sample_ends_training_with_its_name(
    photos: Path, tmp_path: Path, drive: Callable[..., Driver]
) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "photos"))
    raw = recipe(data)
    run, command = words(raw, tmp_path)
    for shard in data.glob("train-*.tar"):
        tiny.flip(shard, 3000)
    driver = drive(*command)
    assert driver.end() == 2
    (line,) = driver.err.read_text().splitlines()
    assert line.startswith("gencomp: error: ") and "the sample has changed" in line
    assert events(run).count("start") == 1 and run.result() is None


def test_failures_have_a_limit_and_a_reason(
    photos: Path, tmp_path: Path, drive: Callable[..., Driver]
) -> None:
    """The folder of sample grids cannot be written: each attempt fails in the same place."""
    raw = recipe(photos)
    run, command = words(raw, tmp_path)
    tiny.started(run.path, raw)
    (run.path / "samples").write_text("not a folder")
    driver = drive(*command, "--max-failures", "1")
    assert driver.end() == 1
    (line,) = driver.err.read_text().splitlines()
    assert line.startswith("gencomp: failed: RuntimeError: training failed: rank 0 (process ")
    assert "FileExistsError" in line
    assert events(run).count("workers_failed") == 2


def test_the_worker_imports_nothing_of_the_current_directory(photos: Path, tmp_path: Path) -> None:
    raw = tiny.generator(photos)
    run, command = words(raw, tmp_path)
    for name in ("cluster", "shards", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is somebody else's file')\n")
    found = subprocess.run(
        [sys.executable, "-P", "-m", "gencomp.cli", *command],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert run.result() is not None


def test_a_worker_without_a_task_ends_with_its_driver() -> None:
    code = """
import time
from cluster.one_process.process import WorkerProcess
with WorkerProcess() as worker:
    print(worker.pid, flush=True)
    time.sleep(3600)
"""
    driver = subprocess.Popen(
        [sys.executable, "-c", code], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    assert int(driver.stdout.readline()) in {one.pid for one in descendants(driver.pid)}
    workers = descendants(driver.pid)
    driver.kill()
    driver.wait()
    driver.stdout.close()
    assert gone(workers)


def test_a_worker_that_died_before_it_has_a_task_has_failed() -> None:
    with WorkerProcess() as worker:
        os.kill(worker.pid, signal.SIGKILL)
        assert wait_for(worker.has_ended)
        worker.begin({"run": "/nowhere"})
        assert worker.end().code == -signal.SIGKILL


def test_a_request_to_stop_outlives_the_worker(
    photos: Path, tmp_path: Path, drive: Callable[..., Driver]
) -> None:
    """A stopped worker cannot obey SIGTERM; when it is killed, no other one is started."""
    run, command = words(recipe(photos), tmp_path)
    driver = drive(*command)
    driver.wait_for(lambda: reached(run, driver, 3))
    (worker,) = driver.workers()
    os.kill(worker.pid, signal.SIGSTOP)
    driver.process.send_signal(signal.SIGTERM)
    driver.wait_for(run.stop_request.exists)
    kill(worker)
    assert driver.end() == 130
    assert len(driver.seen) == 1 and not run.stop_request.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_no_gpu(photos: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    raw = recipe(photos)
    run, command = words(raw, tmp_path)
    tiny.started(run.path, raw)
    assert "--gpu needs a GPU that torch can use" in refused(*command, "--gpu")
