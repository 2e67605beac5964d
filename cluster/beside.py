"""Work beside a driver, on a thread that neither holds the driver up nor makes it fail."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cluster.locks import LockLost
from cluster.logs.process_log import one_line

log = logging.getLogger(__name__)

# What is done last gets so many seconds.
_PATIENCE = 60.0


class Tolerance:
    """Lets work fail: one warning, and a word when it works again.

    Args:
        name: the name of who takes what is logged, such as a tracker.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._has_warned = False

    def __call__(self, work: Callable[[], None]) -> bool:
        """Do some work. Returns False if it failed.

        Raises:
            LockLost: another process has taken the run over.
        """
        try:
            work()
        except LockLost:
            raise
        except Exception as error:  # whatever it is must not stop training
            if not self._has_warned:
                log.warning(
                    "%s does not take what is logged: %s; the run goes on, and what is missing is"
                    " sent when it does",
                    self._name,
                    one_line(error)[:300],
                )
            self._has_warned = True
            return False
        if self._has_warned:
            log.info("%s takes what is logged again", self._name)
            self._has_warned = False
        return True


@contextmanager
def repeated(
    action: Callable[[], None], seconds: float, last: Callable[[], None]
) -> Iterator[None]:
    """While the body runs, do something again and again on a thread of its own.

    Args:
        action: what is done; it ends the thread where it raises `LockLost`.
        seconds: the pause between two times.
        last: what is done after the body. The driver waits for it for a minute at most.
    """
    stop = threading.Event()

    def work() -> None:
        try:
            while not stop.wait(seconds):
                action()
            last()
        except LockLost:
            pass

    thread = threading.Thread(target=work, name="tracking", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_PATIENCE)
        if thread.is_alive():
            log.warning(
                "the last of what was logged was not taken within %g s; the same command sends it",
                _PATIENCE,
            )
