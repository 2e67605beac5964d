"""The error stream of a child process: it goes on to ours, and its last lines are remembered."""

from __future__ import annotations

import sys
import threading
from collections import deque
from contextlib import suppress
from typing import IO

_LINES = 20
_END_SECONDS = 5.0


class ErrorStream:
    """Passes a child's error stream on, line by line, until it ends.

    Args:
        stream: the reading end of the child's error stream.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._last: deque[str] = deque(maxlen=_LINES)
        self._relay = threading.Thread(target=self._pass_on, args=(stream,), daemon=True)
        self._relay.start()

    def lines(self) -> list[str]:
        """The last lines of a child that has ended."""
        self._relay.join(_END_SECONDS)  # processes that the child has left may hold the pipe
        return list(self._last)

    def _pass_on(self, stream: IO[str]) -> None:
        for line in stream:
            self._last.append(line.rstrip("\n"))
            with suppress(OSError):  # on a full disk, the child must not wait at a full pipe
                sys.stderr.write(line)
                sys.stderr.flush()
