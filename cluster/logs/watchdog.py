"""A worker that makes no progress ends itself, and leaves the stacks of its threads in its log.

All ranks of a step wait for each other, so if one hangs, all of them hang within a step of each
other. No rank ends before the others have had time to write down where they are.
"""

from __future__ import annotations

import faulthandler
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.logs.process_log import Journal

STALL_SECONDS = 1800.0
EXIT_STALLED = 86

# A function that is called after each piece of progress, with one word for what follows.
Beat = Callable[[str], None]


@contextmanager
def watchdog(
    journal: Journal, rank: int, seconds: float | None, patience: float | None = None
) -> Iterator[Beat]:
    """End this process if the body makes no progress for some time.

    Time during which the whole process is stopped (a job that Slurm suspends) does not count. A
    thread that hangs in native code without releasing the interpreter hangs the watchdog as well.
    Ray's own health check ends such a worker, and without Ray its driver does
    (`cluster.one_process.pulse`).

    Args:
        journal: the log that takes the stacks.
        rank: the rank of this process, for the message.
        seconds: the time without a call of the yielded function; None waits for ever.
        patience: the seconds that the other ranks have to write down where they are, before this
            process ends; by default a tenth of `seconds`, from 1 to 30.
    """
    doing = _Doing(rank)
    if seconds is None:
        yield doing.beat
        return
    if patience is None:
        patience = patience_of(seconds)
    done = threading.Event()
    thread = threading.Thread(
        target=_watch,
        args=(journal, doing, seconds, patience, done),
        name="watchdog",
        daemon=True,
    )
    thread.start()
    try:
        yield doing.beat
    finally:
        done.set()
        thread.join()


def patience_of(seconds: float) -> float:
    """The seconds that ranks have to write down where they are, after `seconds` of no progress."""
    return min(max(seconds / 10, 1.0), 30.0)


class _Doing:
    """What the thread that created this object is doing, and how often it has made progress."""

    def __init__(self, rank: int) -> None:
        self.what, self.beats = "start", 0
        self.rank = rank
        self._thread = threading.get_ident()

    def beat(self, what: str) -> None:
        self.what = what
        self.beats += 1

    def place(self) -> str:
        """The innermost Python function of the thread: `forward (losses.py:33)`."""
        frame = sys._current_frames().get(self._thread)
        if frame is None:
            return "an unknown place"
        code = frame.f_code
        return f"{code.co_name} ({Path(code.co_filename).name}:{frame.f_lineno})"


def _watch(
    journal: Journal, doing: _Doing, seconds: float, patience: float, done: threading.Event
) -> None:
    tick = min(max(seconds / 20, 0.05), 5.0)
    seen, silent, told = doing.beats, 0.0, False
    before = time.monotonic()
    while not done.wait(tick):
        now = time.monotonic()
        if doing.beats != seen:
            seen, silent, told = doing.beats, 0.0, False
        else:
            # A longer gap means that the whole process was stopped, which is no lack of progress.
            silent += min(now - before, 2 * tick)
        before = now
        if silent >= seconds and not told:
            told = True
            _tell(journal, doing, seconds)
        if silent >= seconds + patience:
            os._exit(EXIT_STALLED)


def _tell(journal: Journal, doing: _Doing, seconds: float) -> None:
    """Write down where the process hangs.

    Python's logging is not used, because the thread that hangs may hold its locks.
    """
    when = "before it trained" if journal.step is None else f"after step {journal.step}"
    message = (
        f"rank {doing.rank} (process {os.getpid()} on {platform.node()}) made no progress for"
        f" {seconds:g} s {when} ({doing.what}): it is in {doing.place()};"
        f" the stacks of its threads are in {journal.path}"
    )
    with suppress(OSError):
        journal.write("CRITICAL", message, event="stalled", stack=_stacks())
    with suppress(OSError):
        print(message, file=sys.stderr, flush=True)


def _stacks() -> str:
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read().decode(errors="replace")
