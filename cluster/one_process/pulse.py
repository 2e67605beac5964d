"""The pulse of a worker: bytes from a thread of its own, while its interpreter runs.

Native code that hangs without releasing the interpreter stops every Python thread of the worker,
its watchdog and this one too. Its driver then hears nothing, and ends it.
"""

from __future__ import annotations

import os
import threading
import time

from cluster import processes
from cluster.logs.watchdog import STALL_SECONDS, patience_of

_BEAT = b"."
_MOST_SECONDS = 5.0  # between two beats


def start(descriptor: int, stall_seconds: float) -> None:
    """Beat from now on, in the worker.

    Args:
        descriptor: the end of the pipe to the driver.
        stall_seconds: the time without progress after which a worker is ended.
    """

    def beat() -> None:
        while True:
            try:
                os.write(descriptor, _BEAT)
            except BlockingIOError:  # the driver has not listened for long: it is suspended
                pass
            except OSError:  # the driver has died
                return
            time.sleep(_between(stall_seconds))

    os.set_blocking(descriptor, False)
    os.set_inheritable(descriptor, False)
    threading.Thread(target=beat, name="pulse", daemon=True).start()


class Listener:
    """The driver's side of a pulse.

    Time during which the driver or the worker was stopped as a whole does not count, and before the
    first beat, while the worker imports what it needs, half an hour or more may pass.

    Attributes:
        gave_up: whether the worker was silent for too long.
    """

    def __init__(self, pid: int, descriptor: int, stall_seconds: float) -> None:
        os.set_blocking(descriptor, False)
        self._pid, self._descriptor = pid, descriptor
        self._stall_seconds = stall_seconds
        self.gave_up = False
        self._heard = False
        self._silent, self._before = 0.0, time.monotonic()

    @property
    def limit(self) -> float:
        """The seconds of silence after which the worker is ended."""
        # Its own watchdog, which says more, comes first where it can.
        seconds = self._stall_seconds + 2 * patience_of(self._stall_seconds)
        return seconds if self._heard else max(seconds, STALL_SECONDS)

    def is_silent(self) -> bool:
        """Whether nothing was heard for too long; to be asked again and again."""
        now, before = time.monotonic(), self._before
        self._before = now
        if self._beats() or processes.is_stopped(self._pid):
            self._silent = 0.0
        else:
            self._silent += min(now - before, 2 * _between(self._stall_seconds))
        self.gave_up = self.gave_up or self._silent >= self.limit
        return self.gave_up

    def _beats(self) -> bool:
        try:
            heard = bool(os.read(self._descriptor, 1 << 16))
        except BlockingIOError:
            heard = False
        self._heard |= heard
        return heard


def _between(stall_seconds: float) -> float:
    """The seconds between two beats."""
    return min(stall_seconds / 20, _MOST_SECONDS)
