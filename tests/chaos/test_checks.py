"""What the chaos tests check can fail, and what they report is what happened."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from cluster import data, worker
from cluster.runs import Run
from shards.reading.stream import Batch
from tests import tiny
from tests.chaos import recovery
from tests.chaos.recording import RecordingSteps, assert_exact
from tests.chaos.recovery import Recovery
from tests.chaos.test_chaos import assert_cheap, assert_like_undisturbed


def crashed_and_resumed(folder: Path, photos: Path) -> tuple[Path, Run]:
    """A tiny run that lost two steps, with the record of its samples."""
    samples = folder / "samples"
    samples.mkdir()
    with mock.patch.object(worker, "Steps", partial(RecordingSteps, samples)):
        with pytest.raises(tiny.Crash):
            tiny.trained(folder / "run", tiny.generator(photos), tiny.crash_after(6))
        run, _ = tiny.trained(folder / "run", tiny.generator(photos))
    return samples, run


def test_a_resumed_run_passes(photos: Path, generator_run: Path, tmp_path: Path) -> None:
    samples, run = crashed_and_resumed(tmp_path, photos)
    assert_exact(samples, run)
    assert_like_undisturbed(run, Run(generator_run))


def test_a_skipped_sample_is_noticed(photos: Path, generator_run: Path, tmp_path: Path) -> None:
    """A restart that goes on one sample too late."""
    stream: Callable[..., Generator[Batch, None, None]] = data.training_stream

    def skipping(*place: Any) -> Generator[Batch, None, None]:
        *others, start = place
        return stream(*others, start + (start > 0))

    with mock.patch.object(data, "training_stream", skipping):
        samples, run = crashed_and_resumed(tmp_path, photos)
    with pytest.raises(AssertionError):
        assert_exact(samples, run)
    with pytest.raises(AssertionError, match="tensors differ"):
        assert_like_undisturbed(run, Run(generator_run))


def test_a_step_without_all_its_ranks_is_noticed(photos: Path, tmp_path: Path) -> None:
    samples, run = crashed_and_resumed(tmp_path, photos)
    (record,) = samples.iterdir()
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(line for line in lines if '"step": 9' not in line))
    with pytest.raises(AssertionError):
        assert_exact(samples, run)


def test_the_report() -> None:
    rounds = [
        Recovery("kill", 10, 8, 2, 4.04),
        Recovery("kill", 21, 16, 2, 6.0),
        Recovery("terminate", 30, 30, 2, 9.0),
    ]
    kill, terminate, every = recovery.summary(rounds)
    assert kill == {
        "fault": "kill",
        "count": 2,
        "seconds_median": 5.0,
        "seconds_most": 6.0,
        "lost_median": 3.5,
        "lost_most": 5,
    }
    assert (terminate["count"], terminate["lost_most"]) == (1, 0)
    assert (every["fault"], every["count"], every["seconds_most"]) == ("all", 3, 9.0)
    assert recovery.table([kill]).splitlines()[1].split() == ["kill", "2", "5.0", "6.0", "3.5", "5"]
    assert_cheap(rounds)
    with pytest.raises(AssertionError):
        assert_cheap([Recovery("terminate", 30, 29, 2, 9.0)])
