"""Waiting for what other threads and processes do, however busy the machine is.

A test awaits an event, never a time: what has happened by when depends on what else runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# Seconds after which something has gone wrong: no machine is as busy as that.
PATIENCE = 400.0


def wait_for(
    condition: Callable[[], object], seconds: float = PATIENCE, pause: float = 0.01
) -> bool:
    """Whether a condition becomes true within some seconds; it is asked again after each pause.

    A condition that costs much is asked less often, so that waiting takes a twentieth of a core at
    most from those who are waited for.
    """
    end = time.monotonic() + seconds
    while True:
        asked = time.thread_time()
        if condition():
            return True
        if time.monotonic() > end:
            return False
        time.sleep(max(pause, 20 * (time.thread_time() - asked)))
