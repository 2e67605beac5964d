"""The time that a sweep has taken, over all its attempts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from cluster.files import write_text

_FILE = "time.json"
_SECONDS_BETWEEN_NOTES = 5.0


class Clock:
    """Runs from its creation on; what it shows survives its process, but for some seconds.

    Args:
        directory: of the sweep.
        limit: seconds that the sweep may take in all.
        may_write: called before each write; raises where another process has taken over the sweep.
    """

    def __init__(
        self, directory: Path, limit: float, may_write: Callable[[], None] = lambda: None
    ) -> None:
        self._file, self._may_write = directory / _FILE, may_write
        self._before = json.loads(self._file.read_text())["seconds"] if self._file.exists() else 0.0
        self._start = self._noted = time.monotonic()
        self.deadline = time.time() + limit - self._before

    def expired(self) -> bool:
        return time.time() >= self.deadline

    def tick(self) -> None:
        """To be called often."""
        if time.monotonic() - self._noted >= _SECONDS_BETWEEN_NOTES:
            self.note()

    def note(self) -> None:
        self._noted = time.monotonic()
        self._may_write()
        spent = self._before + self._noted - self._start
        write_text(self._file, json.dumps({"seconds": round(spent, 1)}))
