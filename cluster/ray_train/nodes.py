"""Nodes of a Ray cluster and whether they answer, in a file of its own that needs no torch."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

_ANSWER_SECONDS = 2.0


class Place(NamedTuple):
    """The place where a process listens, with the name of its host."""

    host: str
    address: str
    port: int


def answers(node: Mapping[str, Any]) -> bool:
    """Whether a node's own process still listens; Ray takes a dead node for alive for some 20 s."""
    return listens(node["NodeManagerAddress"], node["NodeManagerPort"], _ANSWER_SECONDS)


def listens(address: str, port: int, seconds: float) -> bool:
    """Whether a port accepts a connection from this host within some seconds."""
    try:
        socket.create_connection((address, port), timeout=seconds).close()
    except OSError:
        return False
    return True
