"""A check whether a node of a Ray cluster lives, in a file of its own that needs no torch."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

_ANSWER_SECONDS = 2.0


def answers(node: Mapping[str, Any]) -> bool:
    """Whether a node's own process still listens; Ray takes a dead node for alive for some 20 s."""
    try:
        place = (node["NodeManagerAddress"], node["NodeManagerPort"])
        socket.create_connection(place, timeout=_ANSWER_SECONDS).close()
    except OSError:
        return False
    return True
