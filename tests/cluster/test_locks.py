"""One writer a directory: real processes that are killed and stopped, with and without `flock`."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import locks, processes
from cluster.files import lock_holder, locked
from cluster.locks import LockLost
from cluster.logs import json_lines, process_log
from cluster.worker import Host
from gencomp.errors import InputError
from tests import tiny
from tests.processes import ENVIRONMENT, ROOT, Driver
from tests.waiting import PATIENCE, wait_for

# A process that takes itself for one on another host, where `flock` is not shared. It takes others
# there for dead when their heartbeats are late by as much as on a cluster, for this machine may be
# busy; a test that waits for that replaces the number.
SHARED = """
import os, random, signal, sys, time
from pathlib import Path
from cluster import locks, processes
from cluster.files import locked
from gencomp.errors import InputError

directory, place = Path(sys.argv[1]), sys.argv[2]
locks.HEARTBEAT, locks.SILENCE = 0.1, 60.0
locks._flock = lambda file: None
locks._place = lambda: place
"""
# For each line that it reads, a holder says whether it still holds.
ANSWER = """
    for line in sys.stdin:
        try:
            lease.require()
            print("held", flush=True)
        except locks.LockLost as error:
            print(f"lost: {error}", flush=True)
"""
HOLD = f"""
with locked(directory) as lease:
    print("held", flush=True)
{ANSWER}"""
# Takes its turn some times; dies inside its last turn when told so.
TURNS = """
turns, dies = int(sys.argv[3]), sys.argv[4] == "dies"
events = os.open(directory / "events", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
counter = directory / "counter"
random.seed(os.getpid())
while turns:
    try:
        with locked(directory):
            os.write(events, f"enter {os.getpid()}\\n".encode())
            before = int(counter.read_text())
            time.sleep(random.uniform(0, 0.01))
            counter.write_text(str(before + 1))
            turns -= 1
            if dies and not turns:
                os.kill(os.getpid(), signal.SIGKILL)
            os.write(events, f"leave {os.getpid()}\\n".encode())
    except InputError:
        time.sleep(random.uniform(0, 0.02))
"""


class Other:
    """A process that holds, or waits for, a directory."""

    def __init__(self, script: str, *words: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, words)],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self) -> str:
        """Whether it still holds its directory, in its words."""
        assert self.process.stdin is not None
        self.process.stdin.write("?\n")
        self.process.stdin.flush()
        return self.says()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start() -> Iterator[Callable[..., Other]]:
    others: list[Other] = []

    def launch(*words: object) -> Other:
        others.append(Other(*words))  # type: ignore[arg-type]
        return others[-1]

    yield launch
    for other in others:
        other.kill()


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process, too, is on a host of its own."""
    monkeypatch.setattr(locks, "HEARTBEAT", 0.1)
    monkeypatch.setattr(locks, "_flock", lambda file: None)
    monkeypatch.setattr(locks, "_place", lambda: "here")


class TestOnALocalDisk:
    def test_a_stopped_holder_keeps_it_and_a_dead_one_does_not(
        self, tmp_path: Path, start: Callable[..., Other]
    ) -> None:
        script = SHARED.partition("locks.HEARTBEAT")[0] + HOLD
        holder = start(script, tmp_path, "")
        assert holder.says() == "held"
        assert lock_holder(tmp_path) == holder.process.pid
        holder.process.send_signal(signal.SIGSTOP)
        with pytest.raises(InputError, match=f"process {holder.process.pid} on"), locked(tmp_path):
            pass
        holder.kill()
        assert lock_holder(tmp_path) is None
        with locked(tmp_path) as lease:
            assert lease.predecessor == f"process {holder.process.pid} on {os.uname().nodename}"
            assert lock_holder(tmp_path) == os.getpid()
            lease.require()
        assert lock_holder(tmp_path) is None
        assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "lock.000002"]

    @pytest.mark.parametrize(
        ("place", "of_holder", "keeps"),
        [("boot 1", "boot 2", False), ("boot 1", "other 1", True), ("", "boot 2", True)],
        ids=["another container of this kernel", "another host", "an unknown host"],
    )
    def test_a_disk_that_others_may_see(
        self,
        place: str,
        of_holder: str,
        keeps: bool,
        tmp_path: Path,
        start: Callable[..., Other],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The host that serves a disk has it for its own, and knows no `flock` of other hosts.

        Only for a holder under the same kernel is the free `flock` a sign of death.
        """
        monkeypatch.setattr(locks, "HEARTBEAT", 0.1)
        monkeypatch.setattr(locks, "_place", lambda: place)
        holder = start(SHARED + HOLD, tmp_path, of_holder)
        assert holder.says() == "held"
        if keeps:
            with pytest.raises(InputError, match="in use by process"), locked(tmp_path):
                pass
            assert holder.ask() == "held"
        else:
            with locked(tmp_path) as lease:
                assert lease.predecessor is not None

    def test_numbers_never_start_again(self, tmp_path: Path) -> None:
        """Whatever file system this host sees, another one may be about to claim a number."""
        for number in (1, 2, 3):
            with locked(tmp_path) as lease:
                assert lease.number == number

    def test_many_take_turns(self, tmp_path: Path, start: Callable[..., Other]) -> None:
        script = SHARED.partition("locks.HEARTBEAT")[0] + TURNS
        take_turns(tmp_path, lambda number, *words: start(script, tmp_path, "", *words))


class TestOnASharedOne:
    def test_a_living_holder_elsewhere_keeps_it(
        self, tmp_path: Path, shared: None, start: Callable[..., Other]
    ) -> None:
        holder = start(SHARED + HOLD, tmp_path, "elsewhere")
        assert holder.says() == "held"
        with pytest.raises(InputError, match=f"process {holder.process.pid} on"), locked(tmp_path):
            pass
        assert lock_holder(tmp_path) is None  # not on this machine
        assert holder.ask() == "held"
        holder.process.communicate("")
        with locked(tmp_path) as lease:
            assert (lease.number, lease.predecessor) == (2, None)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "lock.000002"]

    def test_one_that_was_stopped_notices_that_it_lost(
        self,
        tmp_path: Path,
        shared: None,
        start: Callable[..., Other],
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(locks, "SILENCE", 3.0)
        holder = start(SHARED + HOLD, tmp_path, "elsewhere")
        assert holder.says() == "held"
        holder.process.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        with locked(tmp_path) as lease:
            assert time.monotonic() - stopped > 2.5
            holder.process.send_signal(signal.SIGCONT)
            assert holder.ask().startswith(f"lost: {tmp_path} was taken over by process")
            # Its farewell leaves the lock alone.
            holder.process.communicate("")
            lease.require()
            assert lock_holder(tmp_path) == os.getpid()
        (wait, taken) = [record.getMessage() for record in caplog.records]
        assert "waiting up to" in wait and "taking over" in taken

    def test_a_dead_one_on_this_host_is_known_at_once(
        self, tmp_path: Path, shared: None, start: Callable[..., Other]
    ) -> None:
        holder = start(SHARED + HOLD, tmp_path, "here")
        assert holder.says() == "held"
        with pytest.raises(InputError, match=f"process {holder.process.pid} on"), locked(tmp_path):
            pass
        holder.kill()
        before = time.monotonic()
        with locked(tmp_path) as lease:
            assert lease.predecessor is not None
        assert time.monotonic() - before < locks.SILENCE / 2

    def test_a_number_that_is_used_again_is_another_process(
        self, tmp_path: Path, shared: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as earlier:
            earlier.setattr(processes, "born", lambda pid: 1)
            assert locks._claim(tmp_path, 1, None) is not None
            assert lock_holder(tmp_path) == os.getpid()
        assert lock_holder(tmp_path) is None
        with locked(tmp_path):
            assert lock_holder(tmp_path) == os.getpid()

    def test_who_decided_long_ago_withdraws(self, tmp_path: Path, shared: None) -> None:
        """Number 2 was taken, left and taken over since a slow process saw number 1."""
        for _ in range(3):
            with locked(tmp_path):
                pass
        with locked(tmp_path) as lease:
            for number in (1, 2, 3, 4):
                assert locks._claim(tmp_path, number, None) is None
            lease.require()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "lock.000004"]

    def test_a_record_cut_short_is_a_stranger(
        self, tmp_path: Path, shared: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Power went away while it was written: nobody beats, so it is taken over in the end."""
        monkeypatch.setattr(locks, "SILENCE", 0.3)
        (tmp_path / "lock.000007").write_text('{"token": "1')
        with locked(tmp_path) as lease:
            assert lease.number == 8 and lease.predecessor == "process 0 on an unknown host"

    def test_one_of_many_takes_over(self, tmp_path: Path, start: Callable[..., Other]) -> None:
        """Eight on eight hosts wait for the same dead one: one gets it, and keeps it."""
        holder = start(SHARED + HOLD, tmp_path, "dead")
        assert holder.says() == "held"
        holder.kill()
        script = SHARED.replace("60.0", "5.0") + HOLD
        waiting = [start(script, tmp_path, f"host{n}") for n in range(8)]
        assert wait_for(lambda: sum(w.process.poll() is not None for w in waiting) == 7)
        (winner,) = [w for w in waiting if w.process.poll() is None]
        assert winner.says() == "held" and winner.ask() == "held"
        for loser in set(waiting) - {winner}:
            assert f"in use by process {winner.process.pid} on" in loser.process.communicate()[1]

    def test_many_take_turns(self, tmp_path: Path, start: Callable[..., Other]) -> None:
        """On one host without `flock` the process number tells who is dead."""
        take_turns(tmp_path, lambda number, *words: start(SHARED + TURNS, tmp_path, "x", *words))


def test_training_that_lost_its_run_writes_nothing_more(
    photos: Path, tmp_path: Path, shared: None
) -> None:
    """Taken over after six steps, as if this process had been stopped: only its log says so."""
    run = tiny.started(tmp_path / "run", tiny.generator(photos))
    steps, seen = iter(range(7)), {}

    def content() -> dict[str, bytes]:
        kept = ("logs", "lock", "tensorboard")
        return {k: v for k, v in tiny.tree(run.path).items() if not k.startswith(kept)}

    with locked(run.path) as lease:

        def take_over() -> bool:
            if next(steps) == 6:
                # The thread that writes it has asked for the lock already.
                assert wait_for((run.checkpoints / "step-000000004/manifest.json").exists)
                assert locks._claim(run.path, lease.number + 1, None) is not None
                seen.update(content())
            return False

        host = Host(should_stop=take_over, may_write=lease.require)
        with pytest.raises(LockLost, match=r"run was taken over by process \d+ on"):
            tiny.trained(run.path, tiny.generator(photos), host)
    assert content() == seen


@pytest.mark.slow
def test_a_driver_that_lost_its_run_leaves_at_once(
    photos: Path, tmp_path: Path, drive: Callable[..., Driver]
) -> None:
    """It has lost it as if stopped on a shared file system: no worker is started again."""
    raw = tiny.generator(photos, {"training.steps": 100_000, "training.sample_every": 100_000})
    file = tiny.write(raw, tmp_path / "tiny.yaml")
    run = tmp_path / "runs" / "tiny"
    driver = drive("train", str(file), "--runs", str(tmp_path / "runs"))
    driver.wait_for(lambda: (run / "metrics.jsonl").exists())
    found = locks.newest(run)
    assert found is not None and found[1].pid == driver.process.pid
    assert locks._claim(run, found[0] + 1, None) is not None
    assert driver.end() == 1
    assert f"LockLost: {run} was taken over by process {os.getpid()}" in driver.err.read_text()
    rows = json_lines.read(process_log.of_rank(run, 0))
    assert len([row for row in rows if row.get("event") == "start"]) == 1


@pytest.mark.slow
def test_many_take_turns_on_many_hosts(tmp_path: Path, start: Callable[..., Other]) -> None:
    """Its silence tells who is dead."""
    script = SHARED.replace("60.0", "3.0") + TURNS
    take_turns(
        tmp_path,
        lambda number, *words: start(script, tmp_path, f"host{number % 3}", *words),
        turns=10,
    )


def take_turns(directory: Path, begin: Callable[..., Other], turns: int = 12) -> None:
    """Six processes, of which two are killed while they hold the lock: never two at once.

    Args:
        begin: of a number, how many turns it takes, and whether it "dies" or "lives".
    """
    (directory / "counter").write_text("0")
    chance = random.Random(3)
    dying = set(chance.sample(range(6), 2))
    others = [begin(n, turns, "dies" if n in dying else "lives") for n in range(6)]
    for other in others:
        other.process.communicate(timeout=PATIENCE)
    assert [o.process.returncode for o in others] == [-9 if n in dying else 0 for n in range(6)]
    killed = {str(others[n].process.pid) for n in dying}
    inside: str | None = None
    for line in (directory / "events").read_text().splitlines():
        what, who = line.split()
        if what == "enter":
            assert inside is None or inside in killed
            inside = who
        else:
            assert inside == who
            inside = None
    assert int((directory / "counter").read_text()) == 6 * turns
