"""The time that a sweep has taken over all its attempts, and what is left of its budget."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from cluster.files import write_text

FILE = "time.json"
_SECONDS_BETWEEN_SAVES = 5.0


class TimeBudget:
    """Counts the seconds of an attempt, and adds them to those of earlier attempts in time.json.

    The time runs from the creation of the object on. A process that is killed loses no more than
    the seconds since the last save.

    Args:
        directory: the directory of the sweep.
        limit: the seconds that all attempts may take together.
        may_write: called before each write; raises where another process has taken over the sweep.

    Attributes:
        deadline: when the budget is used up, in seconds since 1970.
    """

    def __init__(
        self, directory: Path, limit: float, may_write: Callable[[], None] = lambda: None
    ) -> None:
        self._file, self._may_write = directory / FILE, may_write
        self._before = (
            json.loads(self._file.read_text(encoding="utf-8"))["seconds"]
            if self._file.exists()
            else 0.0
        )
        self._start = self._saved = time.monotonic()
        self.deadline = time.time() + limit - self._before

    def is_used_up(self) -> bool:
        return time.time() >= self.deadline

    def save_when_due(self) -> None:
        """Save the time if the last save is some seconds old; this is to be called often."""
        if time.monotonic() - self._saved >= _SECONDS_BETWEEN_SAVES:
            self.save()

    def save(self) -> None:
        """Write the seconds that all attempts have taken so far."""
        self._saved = time.monotonic()
        self._may_write()
        spent = self._before + self._saved - self._start
        write_text(self._file, json.dumps({"seconds": round(spent, 1)}))
