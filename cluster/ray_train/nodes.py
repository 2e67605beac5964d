"""Whether a node of a Ray cluster lives; a file of its own, because nothing here imports torch."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

_ANSWER_SECONDS = 2.0


def answers(node: Mapping[str, Any]) -> bool:
    """Whether a node's own process still listens: Ray counts a dead node in for some 20 s."""
    try:
        place = (node["NodeManagerAddress"], node["NodeManagerPort"])
        socket.create_connection(place, timeout=_ANSWER_SECONDS).close()
    except OSError:
        return False
    return True
