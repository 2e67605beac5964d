"""The loop in one process: interrupted anywhere, it ends with the bits of an uninterrupted run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cluster import data, worker
from cluster.checkpoints.store import MANIFEST, NETWORKS, OPTIMIZERS, CorruptCheckpoint
from cluster.logs import process_log
from cluster.runs import Run, open_run
from cluster.training.worker_info import WorkerInfo
from cluster.worker import Host
from gencomp.errors import InputError
from shards.errors import ShardError
from tests import tiny


@pytest.fixture(scope="module")
def straight(generator_run: Path) -> Run:
    """Twelve steps of the generator without interruption."""
    return open_run(generator_run)


def assert_same_end(run: Run, straight: Run) -> None:
    """Weights, optimizers, metrics log and result, bit for bit."""
    tiny.assert_identical(tiny.state(run), tiny.state(straight))
    assert tiny.rows(run) == tiny.rows(straight)
    assert tiny.result(run) == tiny.result(straight)


# Steps of every kind: before the first, ordinary, a checkpoint's (4, 8), an evaluation's (5, 10),
# a sample grid's (6), the last but one.
@pytest.mark.parametrize("step", [0, 3, 4, 5, 6, 8, 11])
def test_stopped_and_resumed(step: int, photos: Path, straight: Run, tmp_path: Path) -> None:
    raw = tiny.generator(photos)
    run, outcome = tiny.trained(tmp_path / "run", raw, tiny.stop_after(step))
    assert not outcome.finished and outcome.step == step and run.result() is None
    saved = sorted(p.name for p in run.checkpoints.glob("step-*"))
    assert saved[-1:] == ([f"step-{step:09d}"] if step else [])
    run, outcome = tiny.trained(tmp_path / "run", raw)
    assert outcome.finished and outcome.step == 12
    assert_same_end(run, straight)


def test_stopped_at_every_step(photos: Path, straight: Run, tmp_path: Path) -> None:
    raw = tiny.generator(photos)
    for step in range(1, 12):
        run, outcome = tiny.trained(tmp_path / "run", raw, tiny.stop_after(1))
        assert (outcome.finished, outcome.step) == (False, step)
    run, outcome = tiny.trained(tmp_path / "run", raw, tiny.stop_after(1))
    assert outcome.finished
    assert_same_end(run, straight)


@pytest.mark.parametrize("step", [2, 4, 7, 11])
def test_crashed_and_resumed(step: int, photos: Path, straight: Run, tmp_path: Path) -> None:
    """There is no checkpoint at the end; the log goes back to the step of the last one."""
    raw = tiny.generator(photos)
    with pytest.raises(tiny.Crash):
        tiny.trained(tmp_path / "run", raw, tiny.crash_after(step))
    run, outcome = tiny.trained(tmp_path / "run", raw)
    assert outcome.finished
    assert_same_end(run, straight)


def test_the_codec_stage_resumes_too(
    photos: Path, generator_run: Path, codec_run: Path, tmp_path: Path
) -> None:
    raw = tiny.codec(photos, generator_run)
    tiny.trained(tmp_path / "run", raw, tiny.stop_after(7))
    run, _ = tiny.trained(tmp_path / "run", raw)
    assert_same_end(run, open_run(codec_run))


def test_a_finished_run_that_lost_its_result_ends_the_same(straight: Run, tmp_path: Path) -> None:
    """Killed between the last checkpoint and the result: nothing is finalised a second time."""
    run = open_run(shutil.copytree(straight.path, tmp_path / "run"))
    (run.path / "result.json").unlink()
    with torch.random.fork_rng():
        assert worker.train(run, WorkerInfo(), Host()).finished
    torch.use_deterministic_algorithms(False)
    assert_same_end(run, straight)


def test_seeds_and_steps_matter(photos: Path, straight: Run, tmp_path: Path) -> None:
    run, _ = tiny.trained(tmp_path / "run", tiny.generator(photos, {"training.seed": 2}))
    assert tiny.losses(run) != tiny.losses(straight)


def test_reports(photos: Path, tmp_path: Path) -> None:
    """Plain numbers with a step, which never goes back; the last one comes after the result."""
    seen: list[dict[str, float]] = []
    finished: list[bool] = []

    def report(metrics: dict[str, float]) -> None:
        seen.append(metrics)
        finished.append((tmp_path / "run" / "result.json").exists())

    run, outcome = tiny.trained(tmp_path / "run", tiny.generator(photos), Host(report=report))
    assert [m["step"] for m in seen] == sorted(m["step"] for m in seen)
    assert {5, 10, 12} <= {m["step"] for m in seen}
    assert seen[-1] == {"step": 12, **outcome.metrics}
    # A scheduler may end a trial at any report, also at its last one: it must not lose its result.
    assert finished[-1] and not any(finished[:-1])
    # A report holds metrics of its own step only: schedulers compare trials at equal steps.
    by_step = {row["step"]: row["test/mse"] for row in tiny.rows(run) if "test/mse" in row}
    assert {m["step"]: m["mse"] for m in seen if "mse" in m} == by_step


class TestDamage:
    @pytest.fixture
    def stopped(self, photos: Path, tmp_path: Path) -> Run:
        """A run that was stopped, with checkpoints at 4 and 7."""
        return tiny.trained(tmp_path / "run", tiny.generator(photos), tiny.stop_after(7))[0]

    @pytest.mark.parametrize("name", [NETWORKS, OPTIMIZERS])
    def test_goes_on_from_the_one_before(
        self, name: str, stopped: Run, photos: Path, straight: Run, caplog: pytest.LogCaptureFixture
    ) -> None:
        tiny.flip(stopped.checkpoints / "step-000000007" / name)
        run, outcome = tiny.trained(stopped.path, tiny.generator(photos))
        assert outcome.finished
        (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert "step-000000007" in warning and name in warning
        assert_same_end(run, straight)

    def test_all_of_them(self, stopped: Run, photos: Path) -> None:
        for checkpoint in stopped.checkpoints.iterdir():
            (checkpoint / MANIFEST).unlink()
        log = str(process_log.of_rank(stopped.path, 0).relative_to(stopped.path))
        before = tiny.tree(stopped.path)
        with pytest.raises(CorruptCheckpoint, match="no whole checkpoint"):
            tiny.trained(stopped.path, tiny.generator(photos))
        after = tiny.tree(stopped.path)
        assert after.pop(log).startswith(before.pop(log)) and after == before

    def test_a_full_disk_stops_the_run_and_loses_nothing(
        self, stopped: Run, photos: Path, straight: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*arguments: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(torch, "save", full)
            tiny.trained(stopped.path, tiny.generator(photos))
        names = sorted(p.name for p in stopped.checkpoints.iterdir())
        assert names == ["step-000000004", "step-000000007"]
        run, _ = tiny.trained(stopped.path, tiny.generator(photos))
        assert_same_end(run, straight)

    def test_of_a_shard_is_named(self, photos: Path, tmp_path: Path) -> None:
        data = Path(shutil.copytree(photos, tmp_path / "photos"))
        raw = tiny.generator(data)
        run = tiny.started(tmp_path / "run", raw)
        tar = sorted(data.glob("*train*.tar"))[0]
        for at in range(3000, tar.stat().st_size, 4000):
            tiny.flip(tar, at)
        with pytest.raises(ShardError, match=rf"{tar.name}, key '.+', byte \d+: the sample"):
            tiny.trained(run.path, raw)


def test_more_workers_than_images(photos: Path, tmp_path: Path) -> None:
    run = tiny.started(tmp_path / "run", tiny.generator(photos, {"data.batch_size": 2}))
    with pytest.raises(InputError, match="batch_size is 2, but there are 3 workers"):
        worker.train(run, WorkerInfo(0, 3), Host())


class TestOrder:
    """What the phases really see, in one process (see test_ranks.py for several)."""

    @pytest.fixture
    def seen(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
        """The rows and positions of every batch that reaches the loop."""
        batches: list[tuple[np.ndarray, np.ndarray]] = []
        to_batch = data.to_batch

        def recording(host: Any, device: torch.device) -> Any:
            batches.append((host.rows, host.positions))
            return to_batch(host, device)

        monkeypatch.setattr(data, "to_batch", recording)
        yield batches

    def test_every_sample_once_an_epoch(
        self, photos: Path, tmp_path: Path, seen: list[tuple[np.ndarray, np.ndarray]]
    ) -> None:
        tiny.trained(tmp_path / "run", tiny.generator(photos))
        rows = np.concatenate([rows for rows, _ in seen[:12]])
        positions = np.concatenate([positions for _, positions in seen[:12]])
        assert positions.tolist() == list(range(96))
        assert sorted(rows[:43]) == sorted(rows[43:86]) == list(range(43))
        assert rows[:43].tolist() != rows[43:86].tolist()

    def test_the_same_after_resuming_at_any_step(
        self, photos: Path, tmp_path: Path, seen: list[tuple[np.ndarray, np.ndarray]]
    ) -> None:
        raw = tiny.generator(photos)
        for _ in range(11):
            tiny.trained(tmp_path / "run", raw, tiny.stop_after(1))
        positions = [p.tolist() for _, p in seen]
        assert positions == [list(range(8 * k, 8 * k + 8)) for k in range(11)]


class TestPhases:
    """What the loop does around a phase."""

    def test_learning_rates_follow_the_schedule(
        self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """43 images, batches of 8: epoch 1 begins after the 6th step."""
        rates: list[float] = []
        step = torch.optim.Adam.step

        def recording(self: torch.optim.Adam, *arguments: Any) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return step(self, *arguments)

        monkeypatch.setattr(torch.optim.Adam, "step", recording)
        overrides = {
            "optimizer.learning_rate": 0.01,
            "optimizer.decay_epochs": [1, 2],
            "optimizer.decay_factor": 0.5,
        }
        raw = tiny.generator(photos, overrides)
        tiny.trained(tmp_path / "run", raw, tiny.stop_after(7))
        tiny.trained(tmp_path / "run", raw)
        # Samples before step k (from 0) are 8k: an epoch is 43 samples, two are 86.
        assert rates == [0.01] * 6 + [0.005] * 5 + [0.0025]

    def test_only_the_trained_networks_change(self, codec_run: Path, generator_run: Path) -> None:
        parent = open_run(generator_run).final_checkpoint().networks()
        child = open_run(codec_run).final_checkpoint().networks()
        frozen: dict[str, Tensor] = {k: v for k, v in child.items() if k.startswith("generator.")}
        assert frozen
        tiny.assert_identical(frozen, {name: parent[name] for name in frozen})
