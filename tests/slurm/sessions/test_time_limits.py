"""A job whose time limit is shorter than its start ends, and one that is preempted does not."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import run_status
from cluster.runs import Run
from slurm.sessions import session
from slurm.sessions.drive import Drive, TimeLimitTooShort
from slurm.sessions.session import Order, Session
from tests import tiny

Fake = Callable[[str, str], None]


@pytest.fixture
def run(photos: Path, tmp_path: Path) -> Run:
    return tiny.started(tmp_path / "run", tiny.generator(photos))


@pytest.fixture
def here(run: Run, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    order = Order(kind="train", words=("train",), nodes=1, cpus=1, gpu=False, warning=60)
    found = session.session(run.path, order)
    session.enter(found)
    return found


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """A job that is warned ignores further signals; these tests must not."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def warned(drive: Drive, here: Session, work: Callable[[], object] = lambda: None) -> Drive:
    """The job's next attempt, after one that did some work and was then warned by Slurm."""
    drive._before = here.traces()
    work()
    again = drive.checkpoint().function
    assert isinstance(again, Drive)
    return again


def test_three_limits_without_a_step_end_a_job(here: Session, run: Run, fake_command: Fake) -> None:
    fake_command("squeue", "echo 1:40")
    drive = Drive("train-0", str(here.path))
    for _ in range(2):
        drive = warned(drive, here)
    with pytest.raises(TimeLimitTooShort, match=r"^3 attempts in a row .* --time must hold the st"):
        warned(drive, here)
    now = run_status.read(run.path)
    assert now.state == "failed"
    assert now.detail.startswith("3 attempts in a row have reached their time limit without a step")
    assert "100 s from Slurm's warning to the limit" in now.detail


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints/step-000004"])
def test_a_step_or_a_checkpoint_starts_the_count_again(
    name: str, here: Session, run: Run, fake_command: Fake
) -> None:
    fake_command("squeue", "echo 1:40")

    def work() -> None:
        if name.startswith("checkpoints"):
            (run.path / name).mkdir(parents=True)
        else:
            with (run.path / name).open("a") as file:
                file.write("{}\n")

    drive = Drive("train-0", str(here.path))
    for _ in range(2):
        drive = warned(drive, here)
    drive = warned(drive, here, work)
    for _ in range(2):
        drive = warned(drive, here)


@pytest.mark.parametrize("said", ["50:00", "UNLIMITED", ""])
def test_preemption_is_no_limit(said: str, here: Session, fake_command: Fake) -> None:
    fake_command("squeue", f"echo '{said}'")
    drive = Drive("train-0", str(here.path))
    for _ in range(5):
        drive = warned(drive, here)
