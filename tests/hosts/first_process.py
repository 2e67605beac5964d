"""The first process of a host, whose end is the end of the host.

    unshare --mount --uts --ipc --net --pid --fork --kill-child python first_process.py

Its first line of input says, as JSON, what to make of the new namespaces:

    name     the name of the host
    hosts    the content of /etc/hosts
    boot     the path of a file with a boot id
    shared   the directory that all hosts share
    seen     directories that may be read on the host, even below those that it has for itself

It prints one line when the host is ready for its network. It ends with its input.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

# Directories of which each host has its own, and their modes.
_OWN = {"/tmp": "1777", "/dev/shm": "1777", "/run": "755", "/root": "700"}


def main() -> None:
    orders = json.loads(sys.stdin.readline())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps orphans
    _make(orders)
    print("ready", flush=True)
    sys.stdin.read()


def _make(orders: dict[str, Any]) -> None:
    _mount("--make-rprivate", "/")
    _mount("-t", "proc", "proc", "/proc")
    _mount("--bind", orders["boot"], "/proc/sys/kernel/random/boot_id")
    socket.sethostname(orders["name"])
    # /mnt holds what is kept while the directories above it are replaced.
    _mount("-t", "tmpfs", "kept", "/mnt")
    kept = {}
    for number, path in enumerate([orders["shared"], *orders["seen"]]):
        kept[path] = f"/mnt/{number}"
        Path(kept[path]).mkdir()
        _mount("--bind", path, kept[path])
    for path, mode in _OWN.items():
        _mount("-t", "tmpfs", "-o", f"mode={mode}", f"own{path.replace('/', '-')}", path)
    for path, place in kept.items():
        Path(path).mkdir(parents=True, exist_ok=True)
        _mount("--bind", place, path)
    for path in orders["seen"]:
        if not Path(orders["shared"]).is_relative_to(path):
            _mount("-o", "remount,bind,ro", path)
    hosts = Path("/run/hosts")
    hosts.write_text(orders["hosts"], encoding="utf-8")
    _mount("--bind", str(hosts), "/etc/hosts")
    # There is no name server, and nobody must wait for one.
    resolver = Path("/run/resolv.conf")
    resolver.write_text("options timeout:1 attempts:1\n", encoding="utf-8")
    if Path("/etc/resolv.conf").exists():
        _mount("--bind", str(resolver), "/etc/resolv.conf")


def _mount(*words: str) -> None:
    # SIGCHLD is ignored, so that there is no status to wait for; what mount says is the error.
    said = subprocess.run(["mount", *words], stderr=subprocess.PIPE, text=True, check=False).stderr
    if said:
        raise RuntimeError(f"mount {' '.join(words)}: {said.strip()}")


if __name__ == "__main__":
    main()
