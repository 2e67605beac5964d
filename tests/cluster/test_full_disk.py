"""A disk that is full or closed stops the loop with a sentence and costs no checkpoint."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.checkpoints import mirror, store
from cluster.checkpoints.writer import SavingError
from cluster.runs import Run, open_run
from cluster.worker import Host
from tests import tiny

STEPS = {
    "training.checkpoint_every": 2,
    "training.sample_every": 99,
    "evaluation.every": 99,
    "training.keep_checkpoints": 2,
}
ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")


@pytest.fixture(params=[True, False], ids=["async", "sync"])
def raw(request: pytest.FixtureRequest, photos: Path) -> dict[str, Any]:
    return tiny.generator(photos, {**STEPS, "training.checkpoint_async": request.param})


@pytest.fixture(scope="module")
def straight(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    raw = tiny.generator(photos, STEPS)
    return tiny.trained(tmp_path_factory.mktemp("straight") / "run", raw)[0]


@pytest.fixture
def disk(tmp_path: Path, straight: Run) -> Iterator[Path]:
    """RUN/checkpoints is a disk with room for two checkpoints and a half."""
    directory = tmp_path / "run" / "checkpoints"
    directory.mkdir(parents=True)
    size = sum(map(len, tiny.tree(store.directories(straight.checkpoints)[0]).values()))
    options = f"size={5 * size // 2 // 1024}k"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(directory)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("this container may not mount")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def started(disk: Path, raw: dict[str, Any]) -> Run:
    """The run around a disk that is there already."""
    made = tiny.started(disk.parent.with_name("made"), raw)
    for path in made.path.iterdir():
        path.rename(disk.parent / path.name)
    return open_run(disk.parent)


def at_step(step: int, act: Callable[[], None]) -> Host:
    """A host that does something after so many steps."""
    asked = iter(range(step))

    def should_stop() -> bool:
        if next(asked, None) is None:
            act()
        return False

    return Host(should_stop=should_stop)


def assert_went_on(run: Run, raw: dict[str, Any], straight: Run) -> None:
    """The same command, after room was made."""
    _, outcome = tiny.trained(run.path, raw)
    assert outcome.finished
    tiny.assert_identical(tiny.state(run), tiny.state(straight))
    assert tiny.rows(run) == tiny.rows(straight)


def steps_there(disk: Path) -> list[int]:
    """The steps of the checkpoints, which are all whole; nothing else lies there."""
    for path in disk.iterdir():
        store.verify(path)
    return sorted(store.step_of(path) for path in disk.iterdir())


@ROOT_ONLY
def test_full(disk: Path, raw: dict[str, Any], straight: Run) -> None:
    run = started(disk, raw)
    sentence = (
        f"the checkpoint of step 6 could not be written to {re.escape(str(disk))}: No space left "
        "on device; make room, and the same command goes on from step 4"
    )
    with pytest.raises(SavingError, match=sentence):
        tiny.trained(run.path, raw)
    assert steps_there(disk) == [2, 4] and run.result() is None
    with pytest.raises(SavingError, match="No space left"):  # there is still no room
        tiny.trained(run.path, raw)
    assert steps_there(disk) == [2, 4]
    remount(disk, "size=100m")
    assert_went_on(run, raw, straight)


@ROOT_ONLY
def test_no_room_for_what_is_fetched(
    disk: Path, raw: dict[str, Any], straight: Run, tmp_path: Path
) -> None:
    shutil.copytree(straight.path, tmp_path / "copies" / "run")
    run = started(disk, raw)
    remount(disk, "size=20k")
    with pytest.raises(SavingError, match=r"step 12 could not be fetched .*No space left .*room"):
        mirror.arrange(run, str(tmp_path / "copies"))
    assert steps_there(disk) == []
    remount(disk, "size=100m")
    assert mirror.arrange(run, str(tmp_path / "copies")) == 12
    assert steps_there(disk) == [12]


@ROOT_ONLY
def test_read_only(disk: Path, raw: dict[str, Any], straight: Run) -> None:
    remount(disk, "size=100m")
    run = started(disk, raw)
    closed: list[int] = []

    def close() -> None:
        if not closed:
            closed.append(1)
            remount_when_quiet(disk)

    with pytest.raises(
        SavingError, match=r"step 6 .*: Read-only file system; allow writing there, and .* step 4"
    ):
        tiny.trained(run.path, raw, at_step(5, close))
    assert steps_there(disk) == [2, 4]
    remount(disk, "rw")
    assert_went_on(run, raw, straight)


def remount_when_quiet(disk: Path) -> None:
    """The kernel refuses while a file is open for writing."""
    from tests.waiting import wait_for

    words = ["mount", "-o", "remount,ro", str(disk)]
    assert wait_for(lambda: not subprocess.run(words, capture_output=True).returncode)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_forbidden(raw: dict[str, Any], straight: Run, tmp_path: Path) -> None:
    run = tiny.started(tmp_path / "run", raw)
    host = at_step(5, lambda: run.checkpoints.chmod(0o500))
    with pytest.raises(SavingError, match="Permission denied; allow writing there"):
        tiny.trained(run.path, raw, host)
    run.checkpoints.chmod(0o700)
    assert steps_there(run.checkpoints) == [2, 4]
    assert_went_on(run, raw, straight)


@pytest.mark.slow
@ROOT_ONLY
@pytest.mark.parametrize("raw", [True], indirect=True)
def test_the_command_says_one_sentence_and_goes_on_when_there_is_room(
    disk: Path, raw: dict[str, Any], tmp_path: Path, drive: Callable[..., Any]
) -> None:
    run = started(disk, raw)
    recipe = tiny.write(raw, tmp_path / "recipe.yaml")
    words = ("train", str(recipe), "--runs", str(tmp_path), "--name", "run")
    driver = drive(*words)
    assert driver.end() == 1
    (error,) = driver.err.read_text().splitlines()  # and the workers were not started again for it
    assert error.startswith("gencomp: error: ") and "could not be written" in error
    assert "No space left on device; make room" in error
    assert steps_there(disk) == [2, 4]
    remount(disk, "size=100m")
    assert drive(*words, "--copy-to", str(tmp_path / "copies")).end() == 0
    assert run.result() is not None
    newest = store.newest(run.checkpoints)
    copy = store.newest(tmp_path / "copies" / "run" / "checkpoints")
    assert newest is not None and copy is not None
    assert tiny.tree(copy.path) == tiny.tree(newest.path)
    straight, _ = tiny.trained(tmp_path / "straight", raw, calibration=2048)
    tiny.assert_identical(tiny.state(run), tiny.state(straight))
