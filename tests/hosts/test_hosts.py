"""The hosts that tests run on: what they share, what they do not, and how they end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.hosts import Hosts, hosts, why_impossible
from tests.processes import ENVIRONMENT, descendants, gone
from tests.waiting import wait_for

pytestmark = pytest.mark.hosts
BOOT_ID = "/proc/sys/kernel/random/boot_id"
# Whether a host reaches a port of another one, at which nobody listens.
REACHES = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), timeout=float(sys.argv[2]))
except ConnectionRefusedError:
    print("yes")
except OSError:
    print("no")
"""


def reaches(here: Hosts, name: str, address: str, seconds: float = 0.2) -> bool:
    words = (sys.executable, "-S", "-c", REACHES, address, str(seconds))
    return here.run(name, *words).stdout == "yes\n"


def test_they_share_one_directory_and_nothing_else(tmp_path: Path) -> None:
    with Hosts(2, tmp_path) as here:
        for name in ("n1", "n2"):
            here.run(name, "sh", "-c", f"echo {name} | tee /tmp/own /dev/shm/own {tmp_path}/{name}")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["n1", "n2"]
        for name in ("n1", "n2"):
            script = f"hostname; cat /tmp/own /dev/shm/own {tmp_path}/n1"
            assert here.run(name, "sh", "-c", script).stdout.split() == [name, name, name, "n1"]
        here.run("n2", "ip", "link", "add", "other", "type", "veth")
        here.run("n2", "sh", "-c", "sleep 1000 >/dev/null 2>&1 &")
        assert len(here.processes("n2")) == 1 and not here.processes("n1")
        assert here.run("n1", "ip", "link", "show", "other", check=False).returncode != 0
        boots = {here.run(name, "cat", BOOT_ID).stdout for name in ("n1", "n2")}
        assert len(boots | {Path(BOOT_ID).read_text(encoding="utf-8")}) == 3


def test_power_and_cables(tmp_path: Path) -> None:
    with Hosts(2, tmp_path) as here:
        there = here.address("n2")
        assert reaches(here, "n1", there, 10)
        here.unplug("n2")
        assert not reaches(here, "n1", there)
        here.plug("n2")
        assert wait_for(lambda: reaches(here, "n1", there))
        before = here.run("n2", "cat", BOOT_ID).stdout
        process = here.start("n2", "sh", "-c", "touch /dev/shm/own; sleep 1000")
        assert wait_for(lambda: here.run("n2", "ls", "/dev/shm").stdout == "own\n")
        here.cut_power("n2")
        assert process.wait() != 0
        assert not reaches(here, "n1", there)
        here.boot("n2")
        assert wait_for(lambda: reaches(here, "n1", there))
        assert here.run("n2", "ls", "/dev/shm").stdout == ""
        assert here.run("n2", "cat", BOOT_ID).stdout != before


def test_names_and_interfaces_as_one_finds_them(tmp_path: Path) -> None:
    script = (
        "import socket\n"
        "for name in ('n1', 'n2'):\n"
        "    try: print(socket.gethostbyname(name))\n"
        "    except OSError: print('unknown')\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('8.8.8.8', 53))\n"
        "print(s.getsockname()[0])\n"
    )
    words = ("n1", sys.executable, "-S", "-c", script)
    with Hosts(2, tmp_path, own_name="127.0.1.1", peers=False, second_interface=True) as here:
        said = here.run(*words).stdout.split()
        assert said == ["127.0.1.1", "unknown", here.second_address("n1")]
        assert not reaches(here, "n1", here.second_address("n2"))
        assert reaches(here, "n1", here.address("n2"), 10)


def test_what_is_stopped_goes_on(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    with Hosts(1, tmp_path) as here:
        here.start("n1", "sh", "-c", f"while :; do echo >>{counter}; sleep 0.01; done")
        assert wait_for(counter.exists)
        here.hang("n1")
        assert wait_for(lambda: counter.stat().st_size == sized_twice(counter))
        before = counter.stat().st_size
        here.go_on("n1")
        assert wait_for(lambda: counter.stat().st_size > before)


def sized_twice(path: Path) -> int:
    """The size of a file after some writes of a process that has not been stopped."""
    before = path.stat().st_size
    wait_for(lambda: path.stat().st_size > before, 0.2)
    return path.stat().st_size


def test_a_file_of_its_own_is_locked_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.write_text("content")
    attempt = ("flock", "--nonblock", str(file), "cat", str(file))
    with Hosts(3, tmp_path) as here:
        here.own_file("n2", file)
        holder = here.start(
            "n1", "flock", str(file), "sh", "-c", "echo; cat", stdin=subprocess.PIPE, stdout=-1
        )
        assert holder.stdout is not None and holder.stdout.readline()
        assert here.run("n2", *attempt).stdout == "content"
        assert here.run("n3", *attempt, check=False).returncode == 1
        holder.communicate()


def test_they_end_with_the_process_that_made_them(tmp_path: Path) -> None:
    script = (
        "import signal, sys; from pathlib import Path; from tests.hosts import Hosts\n"
        "with Hosts(2, Path(sys.argv[1])) as here:\n"
        "    here.start('n1', 'sleep', '1000')\n"
        "    print('up', flush=True)\n"
        "    signal.pause()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        below = descendants(process.pid)
        assert len(below) >= 7
        process.kill()
    assert gone(below)


def test_where_they_are_impossible_the_mend_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert why_impossible() is None
    monkeypatch.setattr(hosts, "_path", lambda: str(tmp_path))
    assert why_impossible() == f"no ip, mount, nsenter, unshare here: {hosts.MEND}"
    for name in ("ip", "mount", "nsenter", "unshare"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'Operation not permitted' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    said = why_impossible()
    assert said is not None and "(Operation not permitted): run as root after apt-get" in said
