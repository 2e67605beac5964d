"""One writer a directory on hosts that share it, with clocks, cables and power of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.test_locks import ANSWER
from tests.hosts import Hosts

pytestmark = pytest.mark.hosts

# A process on a host whose clock differs from that of the file server. It waits for a sign of life
# as many seconds as it is told, and beats ten times a second.
BEGIN = """
import sys, time
from pathlib import Path
directory, silence, skew = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
now = time.time
time.time = lambda: now() + skew
from cluster import locks
locks.HEARTBEAT, locks.SILENCE = 0.1, silence
"""
HOLD = f"""
with locks.locked(directory) as lease:
    print(f"held after {{lease.predecessor}}", flush=True)
{ANSWER}"""
LOOK = """
found = locks.living(directory)
print(found[0] if found else "nobody")
"""
# A dead holder is waited for as long as this; a living one is trusted for a minute.
SHORT, LONG = 2.0, 60.0


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    (path / "lock").touch()
    return path


@pytest.fixture
def two(run: Path) -> Iterator[Hosts]:
    """n1 serves the directory from its own disk; n2 has its locks for itself, as a client of NFS
    without locks has.
    """
    with Hosts(2, run) as hosts:
        hosts.own_file("n2", run / "lock")
        yield hosts


class Holder:
    """A process on a host that holds a directory, or waits for it."""

    def __init__(self, hosts: Hosts, name: str, run: Path, silence: float = LONG) -> None:
        pipe = subprocess.PIPE
        words = (sys.executable, "-c", BEGIN + HOLD, str(run), str(silence), "0")
        self.process = hosts.start(name, *words, stdin=pipe, stdout=pipe, stderr=pipe)

    def says(self) -> str:
        assert self.process.stdout is not None and self.process.stderr is not None
        return self.process.stdout.readline().strip() or self.process.stderr.read()

    def ask(self) -> str:
        """Whether it still holds its directory, in its words."""
        assert self.process.stdin is not None
        print("?", file=self.process.stdin, flush=True)
        return self.says()


def look(hosts: Hosts, name: str, run: Path, skew: float) -> str:
    """The living holder of a directory, as a host with a clock of its own sees it."""
    words = (sys.executable, "-c", BEGIN + LOOK, str(run), str(LONG), str(skew))
    return hosts.run(name, *words).stdout.strip()


@pytest.mark.parametrize(("first", "second"), [("n1", "n2"), ("n2", "n1")])
def test_neither_server_nor_client_steals_from_the_other(
    first: str, second: str, two: Hosts, run: Path
) -> None:
    holder = Holder(two, first, run)
    assert holder.says() == "held after None"
    refused = Holder(two, second, run).says()
    assert "InputError" in refused and f"{run} is in use by process" in refused
    assert f"on {first}" in refused
    assert holder.ask() == "held"
    holder.process.communicate()
    assert Holder(two, second, run).says() == "held after None"


@pytest.mark.parametrize("skew", [-120.0, 0.0, 120.0])
def test_clocks_that_differ_kill_nobody(skew: float, two: Hosts, run: Path) -> None:
    holder = Holder(two, "n1", run)
    assert holder.says() == "held after None"
    assert look(two, "n2", run, skew).endswith("on n1")


def test_a_host_without_its_cable_loses_the_run_and_notices(two: Hosts, run: Path) -> None:
    """What reaches for the file server waits until the cable is back; no write goes through."""
    holder = Holder(two, "n2", run)
    assert holder.says() == "held after None"
    two.unplug("n2")
    two.hang("n2")
    taker = Holder(two, "n1", run, SHORT)
    taken = taker.says()
    assert taken.startswith("held after process") and taken.endswith("on n2")
    two.plug("n2")
    two.go_on("n2")
    lost = holder.ask()
    assert lost.startswith(f"lost: {run} was taken over by process") and "on n1" in lost
    holder.process.communicate()  # its farewell leaves the lock alone
    assert taker.ask() == "held"


@pytest.mark.parametrize("name", ["n1", "n2"])
def test_a_host_that_lost_power_is_replaced_also_by_itself(
    name: str, two: Hosts, run: Path
) -> None:
    """Started anew it has the same name, and a process there may have the number of the holder."""
    assert Holder(two, "n1", run).says() == "held after None"
    two.cut_power("n1")
    two.boot("n1")
    assert look(two, name, run, 2 * LONG) == "nobody"
    taken = Holder(two, name, run, SHORT).says()
    assert taken.startswith("held after process") and taken.endswith("on n1")
