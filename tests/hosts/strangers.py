"""What hosts tell to a stranger on their network, who has no token, and let other users write."""

from __future__ import annotations

import ipaddress
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cluster import without_token
from tests.hosts.hosts import Hosts


def told(hosts: Hosts, name: str, stranger: str) -> dict[str, Any]:
    """What `without_token` finds at every port of a host that listens.

    The stranger is on another host, but on this one for the ports that no other host reaches.
    """
    found: dict[str, Any] = {}
    address = hosts.address(name)
    ports: dict[str, list[str]] = {stranger: [], name: []}
    for listens, port in _listening(hosts, name):
        if listens.is_loopback:
            ports[name].append(f"{listens}:{port}")
        else:
            ports[stranger].append(f"{address}:{port}")
    for asks, places in ports.items():
        words = (sys.executable, "-m", without_token.__name__, *places)
        found |= json.loads(hosts.run(asks, *words).stdout)
    return found


def open_doors(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The ports of `told` at which a call is answered or a page is shown, and which."""
    calls = [(at, call, code) for at in found for call, code in found[at]["calls"].items()]
    answers = [(at, call) for at, call, code in calls if code == "OK"]
    pages = [(at, found[at]["page"]) for at in found]
    return answers + [(at, page) for at, page in pages if not without_token.refuses(page)]


def refused_calls(found: dict[str, Any]) -> set[str]:
    """The calls of `told` that some port has refused for want of a token."""
    every = [one["calls"].items() for one in found.values()]
    return {call for calls in every for call, code in calls if code == "UNAUTHENTICATED"}


def writable_by_others(place: Path) -> Iterator[Path]:
    """What any user can reach below a directory, and may write."""
    for entry in os.scandir(place):
        try:
            mode = entry.stat(follow_symlinks=False).st_mode
        except FileNotFoundError:  # a file that is written under another name first
            continue
        if stat.S_ISLNK(mode):
            continue
        if mode & stat.S_IWOTH:
            yield Path(entry.path)
        if stat.S_ISDIR(mode) and mode & stat.S_IXOTH:
            yield from writable_by_others(Path(entry.path))


def _listening(hosts: Hosts, name: str) -> Iterator[tuple[ipaddress.IPv4Address, int]]:
    """The addresses and ports at which a host listens; of IPv6, those that take IPv4 as well."""
    for line in hosts.run(name, "ss", "-Hltn").stdout.splitlines():
        where, _, port = line.split()[3].rpartition(":")
        host = where.strip("[]").partition("%")[0].removeprefix("::ffff:")
        every = host in ("*", "::")
        yield ipaddress.IPv4Address("0.0.0.0" if every else host), int(port)
