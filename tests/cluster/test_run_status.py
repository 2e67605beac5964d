"""The status of real runs that finish, stop, crash and die, and of files that are half there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cluster import locks, run_status
from cluster.files import locked
from cluster.logs import json_lines, process_log
from cluster.run_status import Standing
from tests import tiny
from tests.processes import ENVIRONMENT, ROOT
from tests.waiting import PATIENCE

HOST = os.uname().nodename


@pytest.fixture
def run(photos: Path, tmp_path: Path) -> Path:
    """Started, but not yet trained."""
    return tiny.started(tmp_path / "run", tiny.generator(photos)).path


def trained(run: Path, photos: Path, *arguments: Any) -> Standing:
    tiny.trained(run, tiny.generator(photos), *arguments)
    return run_status.read(run)


def test_from_new_to_finished(photos: Path, run: Path) -> None:
    new = run_status.read(run)
    assert (new.kind, new.state, new.step, new.total) == ("dplc/wae", "new", 0, 12)
    assert (new.evaluation, new.checkpoint, new.attempts, new.failures) == (None, None, 0, [])

    stopped = trained(run, photos, tiny.stop_after(7))
    assert (stopped.state, stopped.step, stopped.attempts) == ("stopped", 7, 1)
    assert stopped.checkpoint is not None and stopped.checkpoint["step"] == 7
    assert stopped.evaluation is not None and stopped.evaluation["step"] == 5
    assert stopped.evaluation["mse"] > 0 and stopped.seconds_left is None
    assert 0 <= time.time() - stopped.checkpoint["time"] < 300

    with pytest.raises(tiny.Crash):
        trained(run, photos, tiny.crash_after(2))
    crashed = run_status.read(run)
    assert (crashed.state, crashed.detail, crashed.step) == ("failed", "Crash:", 9)
    assert [failure["message"] for failure in crashed.failures] == ["Crash:"]

    finished = trained(run, photos)
    assert (finished.state, finished.step, finished.total) == ("finished", 12, 12)
    assert (finished.attempts, len(finished.failures)) == (3, 1)
    assert finished.evaluation is not None and finished.evaluation["step"] == 12


def test_what_a_driver_waits_for(photos: Path, run: Path) -> None:
    text = "waiting for 2 workers of 1 CPU each: the cluster has room for 1"
    with locked(run), process_log.driving(run, None, lambda row: None):
        holder = run_status.read(run).detail
        process_log.note(run, "WARNING", text, event="waiting")
        waits = run_status.read(run)
        assert (waits.state, waits.detail, waits.failures) == ("running", f"{holder}, {text}", [])
        with pytest.raises(tiny.Crash):
            tiny.trained(run, tiny.generator(photos), tiny.crash_after(2))
        assert run_status.read(run).detail == holder


def rows(run: Path, first: int, last: int, start: float, seconds: float = 2.0) -> None:
    for step in range(first, last + 1):
        row = {"step": step, "epoch": step / 5, "time": start + seconds * (step - first)}
        json_lines.append(run / "metrics.jsonl", row | {"samples_per_second": 4.0})


class TestWhileItRuns:
    @pytest.fixture(autouse=True)
    def log(self, run: Path) -> None:
        """A second attempt, with steps of 2 s; steps of the first took 100 s."""
        rows(run, 1, 4, time.time() - 1000, seconds=100)
        with process_log.journal(run, rank=0) as journal:
            journal.write("INFO", "starts", event="start")
        rows(run, 5, 8, time.time() + 1)

    def test_speed_and_time_left(self, run: Path) -> None:
        """They are those of this attempt alone."""
        with locked(run):
            found = run_status.read(run)
        assert (found.state, found.detail) == ("running", f"process {os.getpid()} on {HOST}")
        assert (found.step, found.total) == (8, 12)
        assert found.samples_per_second == pytest.approx(4.0)
        assert found.seconds_left == pytest.approx(4 * 2.0)

    def test_a_length_in_epochs(self, run: Path) -> None:
        identity = json.loads((run / "identity.json").read_text())
        identity |= {"training.steps": None, "training.epochs": 4}
        (run / "identity.json").write_text(json.dumps(identity))
        assert run_status.read(run).total == 20

    def test_a_holder_elsewhere_by_its_heartbeat(
        self, run: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(locks, "_place", lambda: "elsewhere")
            assert locks._claim(run, 1, None) is not None
        found = run_status.read(run)
        assert found.state == "running" and "seen 0 s ago" in found.detail
        long_ago = time.time() - locks.SILENCE - 1
        os.utime(run / "lock.000001", (long_ago, long_ago))
        monkeypatch.setattr(process_log, "of_rank", lambda run, rank: run / "none")
        monkeypatch.setattr(locks, "HEARTBEAT", 0.1)
        assert run_status.read(run).state == "new"

    @pytest.mark.parametrize("skew", [-130, -60, 0, 60, 130])
    def test_clocks_that_differ(
        self, run: Path, monkeypatch: pytest.MonkeyPatch, skew: float
    ) -> None:
        """A file server stamps heartbeats by a clock that is not ours, by some seconds."""
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(locks, "_place", lambda: "elsewhere")
            assert locks._claim(run, 1, None) is not None
        monkeypatch.setattr(locks, "HEARTBEAT", 0.2)
        beaten, ended = threading.Event(), threading.Event()

        def beat() -> None:
            while not ended.wait(0.2):
                now = time.time() + skew
                os.utime(run / "lock.000001", (now, now))
                beaten.set()

        thread = threading.Thread(target=beat)
        thread.start()
        try:
            assert beaten.wait(PATIENCE)
            found = [run_status.holder(run) for _ in range(3)]
        finally:
            ended.set()
            thread.join()
        assert all(found)

    def test_a_loop_without_a_lock(self, run: Path) -> None:
        assert run_status.read(run).state == "running"  # this process wrote the log
        assert run_status.read(run, held=False).state == "interrupted"

    def test_a_killed_driver(self, run: Path) -> None:
        code = "import os, sys\nfrom pathlib import Path\n"
        code += "from cluster.logs import process_log\n"
        code += "with process_log.driving(Path(sys.argv[1]), None, print):\n"
        code += "    os.kill(os.getpid(), 9)"
        for _ in range(2):
            killed = [sys.executable, "-c", code, str(run)]
            assert subprocess.run(killed, cwd=ROOT, env=ENVIRONMENT).returncode == -9
        found = run_status.read(run)
        assert found.state == "interrupted" and "died without a word" in found.detail
        (failure,) = found.failures
        assert "died without a word" in failure["message"]

    def test_failed_workers(self, run: Path) -> None:
        with process_log.driving(run, None, lambda row: None):
            process_log.note(run, "WARNING", "rank 1 died", event="workers_failed")
        with pytest.raises(RuntimeError), process_log.driving(run, None, lambda row: None):
            raise RuntimeError("all is lost")
        found = run_status.read(run)
        assert (found.state, found.detail) == ("failed", "RuntimeError: all is lost")
        said = [failure["message"] for failure in found.failures]
        assert said == ["rank 1 died", "RuntimeError: all is lost"]


class TestFilesThatAreHalfThere:
    @pytest.fixture
    def finished(self, generator_run: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(generator_run, tmp_path / "run"))

    def test_each_of_them_cut_anywhere(self, finished: Path) -> None:
        """Whatever is cut, and wherever: an answer, and never an error."""
        names = ["recipe.yaml", "metrics.jsonl", "result.json", "logs/rank-00000.jsonl"]
        names += ["checkpoints/step-000000012/manifest.json"]
        for name in names:
            whole = (finished / name).read_bytes()
            for size in sorted({0, 1, *range(2, len(whole), max(len(whole) // 40, 1))}):
                (finished / name).write_bytes(whole[:size])
                run_status.read(finished)
            (finished / name).unlink()
            run_status.read(finished)
            (finished / name).write_bytes(whole)
        assert run_status.read(finished).state == "finished"

    def test_a_checkpoint_that_is_not_whole_does_not_count(self, finished: Path) -> None:
        os.truncate(finished / "checkpoints" / "step-000000012" / "networks.safetensors", 100)
        found = run_status.read(finished).checkpoint
        assert found is not None and found["step"] == 8

    def test_a_lock_that_is_only_being_written(self, finished: Path) -> None:
        (finished / "lock.000003").touch()
        assert "an unknown host" in (run_status.holder(finished) or "")

    def test_a_directory_that_is_not_one(self, tmp_path: Path) -> None:
        assert not run_status.is_run(tmp_path)
        assert run_status.holder(tmp_path / "none") is None


def test_it_does_not_need_torch() -> None:
    code = "import sys, cluster.run_status, gencomp.cli.status; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, check=True)


def test_json_of_python_and_of_the_log_agree(generator_run: Path) -> None:
    """What is shown as the newest evaluation is what the result says."""
    found = run_status.read(generator_run)
    result = json.loads((generator_run / "result.json").read_text())
    assert found.evaluation is not None
    assert found.evaluation["mse"] == pytest.approx(result["mse"])
