"""Stopping on request: the first signal asks for a checkpoint, the second interrupts at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def stop_requests(flag: Path) -> Iterator[None]:
    """While the body runs, a signal makes the file `flag`, which workers look for before each step.

    Raises:
        KeyboardInterrupt: a second signal has come; it is raised in the body.
    """

    def ask(number: int, frame: Any) -> None:
        if flag.exists():
            raise KeyboardInterrupt
        flag.touch()

    flag.unlink(missing_ok=True)
    previous = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        flag.unlink(missing_ok=True)
