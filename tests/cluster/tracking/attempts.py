"""A tracked training of three attempts, by real processes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from cluster.runs import Run
from cluster.tracking.choice import Name
from tests import tiny
from tests.cluster.ray_train.test_train import reached
from tests.cluster.tracking.in_memory import step_sent
from tests.processes import Driver
from tests.waiting import wait_for


def stopped_killed_and_finished(
    photos: Path, folder: Path, drive: Callable[..., Driver], tracker: Name
) -> Run:
    """A run that was asked to stop, gone on with and killed, and gone on with to its end."""
    raw = tiny.generator(photos, {"training.steps": 300, "training.sample_every": 50})
    file = tiny.write(raw, folder / "tiny.yaml")
    run = Run(folder / "runs" / "tiny")
    words = ["train", str(file), "--runs", str(folder / "runs"), "--track", tracker]

    def sent() -> int:
        return step_sent(run, tracker)

    first = drive(*words)
    first.wait_for(lambda: sent() > 5)
    first.process.send_signal(signal.SIGTERM)
    assert first.end() == 130, first.words()
    stopped_at = sent()

    second = drive(*words)
    second.wait_for(lambda: reached(run, second, stopped_at + 2) and sent() > stopped_at)
    second.process.kill()
    second.process.wait()
    assert wait_for(lambda: not any(process.alive() for process in second.seen))

    third = drive(*words)
    assert third.end() == 0, third.words()
    return run
