"""The hosts, seen from outside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from cluster import processes
from tests.processes import ENVIRONMENT, ROOT
from tests.waiting import PATIENCE, wait_for

MEND = "run as root after apt-get install --no-install-recommends iproute2 util-linux"
_PROGRAMS = ("ip", "mount", "nsenter", "unshare")
_OWN_NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid")
_FIRST_PROCESS = Path(__file__).with_name("first_process.py")
# All network interfaces of all hosts; 10.88.1.0/24 and so on are those of second interfaces.
_CLUSTER = "10.77.0"
_SECOND = "10.88"
# How the other ends of a host's first and second interface begin.
_SIDES = ("c", "s")


def why_impossible() -> str | None:
    """Why there cannot be hosts on this machine, with the mend; None if there can."""
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing:
        return f"no {', '.join(missing)} here: {MEND}"
    # A container's root may be forbidden to make interfaces, mounts or namespaces.
    probe = "mount --make-rprivate / && mount -t proc proc /proc && ip link add type veth"
    words = ["unshare", *_OWN_NAMESPACES, "--fork", "sh", "-c", probe]
    done = subprocess.run(words, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"no namespaces with a network here ({done.stderr.strip()}): {MEND}"
    return None


class Hosts:
    """Hosts n1, n2 and so on, for as long as the `with` block lasts.

    Args:
        number: the number of hosts.
        shared: a directory that all of them see under its own path, as this process does.
        own_name: the address that every host takes its own name for, such as 127.0.1.1, which
            Debian's installer writes; None for the address of its first interface.
        peers: whether every host knows the names of the others.
        second_interface: whether each host has a second interface, with the default route, that
            reaches no other host.
    """

    def __init__(
        self,
        number: int,
        shared: Path,
        own_name: str | None = None,
        peers: bool = True,
        second_interface: bool = False,
    ) -> None:
        self.names = [f"n{place}" for place in range(1, number + 1)]
        self.shared = shared.resolve()
        self._own_name, self._peers, self._second = own_name, peers, second_interface
        self._folder = Path(tempfile.mkdtemp(prefix="hosts-", dir="/tmp"))
        self._first: dict[str, subprocess.Popen[str]] = {}
        self._switch: subprocess.Popen[str] | None = None
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        try:
            # A network stack with a bridge, which lasts as long as its process.
            words = [
                "unshare",
                "--net",
                "sh",
                "-c",
                "ip link add br0 type bridge && echo ready; cat",
            ]
            self._switch = _started(words)
            _inside(self._switch.pid, "ip", "link", "set", "br0", "up")
            for name in self.names:
                self.boot(name)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all hosts, and all that runs on them."""
        for name in list(self._first):
            self.cut_power(name)
        if self._switch is not None:
            _end(self._switch)
        shutil.rmtree(self._folder, ignore_errors=True)

    def address(self, name: str) -> str:
        """The address of a host by which the others reach it."""
        return f"{_CLUSTER}.{_place(name)}"

    def second_address(self, name: str) -> str:
        """The address of the second interface of a host."""
        return f"{_SECOND}.{_place(name)}.2"

    def boot(self, name: str) -> None:
        """Start a host, which gets a new boot id."""
        boot = self._folder / f"boot-{name}"
        boot.unlink(missing_ok=True)
        boot.write_text(f"{uuid.uuid4()}\n", encoding="utf-8")
        words = ["unshare", *_OWN_NAMESPACES, "--fork", "--kill-child"]
        words += [sys.executable, "-S", str(_FIRST_PROCESS)]
        orders = {
            "name": name,
            "hosts": self._hosts_file(name),
            "boot": str(boot),
            "shared": str(self.shared),
            "seen": _seen(self.shared),
        }
        self._first[name] = _started(words, json.dumps(orders) + "\n")
        self._connect(name)

    def cut_power(self, name: str) -> None:
        """End a host at once. Nobody else is told, and its own files are lost."""
        self.unplug(name)
        _end(self._first.pop(name))
        if self._switch is not None:
            # The kernel takes its time to clear the network of a host that has gone.
            for side in _SIDES:
                with suppress(RuntimeError):  # it was faster
                    _inside(self._switch.pid, "ip", "link", "del", f"{side}{_place(name)}")

    def has_power(self, name: str) -> bool:
        return name in self._first

    def unplug(self, name: str) -> None:
        """Pull the cable of a host's first interface out."""
        self._link(name, "down")

    def plug(self, name: str) -> None:
        """Put the cable of a host's first interface in again."""
        self._link(name, "up")

    def hang(self, name: str) -> None:
        """Stop all that runs on a host, as when each process waits for a file server."""
        self._signal_all(name, signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        """Let all go on that `hang` has stopped."""
        self._signal_all(name, signal.SIGCONT)
        for process in self._started:  # nsenter stops with the command that it runs
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)

    def own_file(self, name: str, path: Path) -> None:
        """Give a host a file of its own, a copy, in place of one in the shared directory.

        What the host locks in it is hidden from all others, as on a file system whose `flock`
        reaches no other host.
        """
        own = f"/run/{uuid.uuid4()}"
        self.run(name, "cp", "--preserve", str(path), own)
        self.run(name, "mount", "--bind", own, str(path))

    def run(
        self, name: str, *words: str, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host to its end, like `subprocess.run`; the output is captured."""
        options = {"capture_output": True, "timeout": PATIENCE, **options}
        done = subprocess.run(**self._how(name, words, options), check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)} on {name}: {done.stdout}{done.stderr}")
        return done

    def start(self, name: str, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command on a host, like `subprocess.Popen`; `send_signal` does not reach it."""
        self._started.append(subprocess.Popen(**self._how(name, words, options)))
        return self._started[-1]

    def signal(self, process: subprocess.Popen[str], number: int) -> None:
        """Send a signal to a command that `start` has started."""
        for pid in processes.children(process.pid):
            os.kill(pid, number)

    def processes(self, name: str) -> list[int]:
        """The processes of a host but its first one, by their numbers on this machine.

        A host without power has none.
        """
        if not self.has_power(name):
            return []
        first = self._pid(name)
        space = os.readlink(f"/proc/{first}/ns/pid")
        return [pid for pid in _all_processes() if pid != first and _space(pid) == space]

    def path(self, name: str, path: Path) -> Path:
        """The path by which this process reaches a file of a host."""
        return Path(f"/proc/{self._pid(name)}/root{path}")

    def _how(self, name: str, words: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
        enter = ["nsenter", f"--target={self._pid(name)}", *_OWN_NAMESPACES, "--"]
        environment = _environment() | options.pop("env", {})
        return {
            "args": [*enter, *words],
            "env": environment,
            "cwd": "/",
            "text": True,
            "stdin": subprocess.DEVNULL,
            **options,
        }

    def _pid(self, name: str) -> int:
        """The number of a host's first process on this machine."""
        (pid,) = processes.children(self._first[name].pid)
        return pid

    def _connect(self, name: str) -> None:
        """Give a host its interfaces. They go when it ends."""
        assert self._switch is not None
        place, pid, switch = _place(name), self._pid(name), self._switch.pid

        def interface(here: str, there: str, address: str) -> None:
            # A host that is started again keeps its hardware, by which others know it.
            hardware = f"02:00:{':'.join(f'{int(part):02x}' for part in address.split('.'))}"
            peer = ["peer", "name", here, "netns", str(pid), "address", hardware]
            _inside(switch, "ip", "link", "add", there, "type", "veth", *peer)
            _inside(switch, "ip", "link", "set", there, "up")
            _inside(pid, "ip", "addr", "add", f"{address}/24", "dev", here)
            _inside(pid, "ip", "link", "set", here, "up")

        _inside(pid, "ip", "link", "set", "lo", "up")
        cluster, second = (f"{side}{place}" for side in _SIDES)
        interface("eth0", cluster, self.address(name))
        _inside(switch, "ip", "link", "set", cluster, "master", "br0")
        if self._second:
            interface("eth1", second, self.second_address(name))
            gateway = f"{_SECOND}.{place}.1"
            _inside(pid, "ip", "route", "add", "default", "via", gateway, "dev", "eth1")

    def _hosts_file(self, name: str) -> str:
        lines = ["127.0.0.1 localhost", f"{self._own_name or self.address(name)} {name}"]
        if self._peers:
            lines += [f"{self.address(other)} {other}" for other in self.names if other != name]
        return "".join(f"{line}\n" for line in lines)

    def _link(self, name: str, state: str) -> None:
        _inside(self._pid(name), "ip", "link", "set", "eth0", state)

    def _signal_all(self, name: str, number: int) -> None:
        for pid in self.processes(name):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _started(words: Sequence[str], orders: str = "") -> subprocess.Popen[str]:
    """Start a process that holds namespaces, and wait until it is ready. It ends with its input."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        words, env=_environment(), stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(orders)
    process.stdin.flush()
    if process.stdout.readline() != "ready\n":
        _, said = process.communicate()
        raise RuntimeError(f"{' '.join(words)}: {said.strip()}")
    return process


def _end(process: subprocess.Popen[str]) -> None:
    """Kill what holds namespaces, and wait until all in them has ended."""
    inside = processes.children(process.pid)
    for pid in inside or [process.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()
    assert wait_for(lambda: not any(map(processes.born, inside)))


def _inside(pid: int, *words: str) -> None:
    """Run a command in the network stack of a process."""
    command = ["nsenter", f"--target={pid}", "--net", "--", *words]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


def _seen(shared: Path) -> list[str]:
    """The directories that a test needs on a host: the project's, Python's and its packages'."""
    needed = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), ROOT}
    return sorted(str(path) for path in needed if not path.is_relative_to(shared))


def _environment() -> dict[str, str]:
    """The environment of a host: this process's, with nothing that leads to another cluster."""
    foreign = ("RAY_", "SLURM", "TMPDIR")
    kept = {name: value for name, value in ENVIRONMENT.items() if not name.startswith(foreign)}
    kept["RAY_USAGE_STATS_ENABLED"] = "0"
    return {**kept, "PATH": _path(), "HOME": "/root"}


def _path() -> str:
    """Where programs are looked for; those for administrators are not on every user's path."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def _place(name: str) -> int:
    return int(name.removeprefix("n"))


def _all_processes() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _space(pid: int) -> str | None:
    """The namespace in which a process has its number; None if the process is gone."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None
