"""Sharing the blocks of an evaluation among processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

from cluster.evaluations.work import MakePart
from shards.pool import one_thread_each

# A function that opens what the blocks of one process share, and gives the function that makes
# their parts. It is called in that process, with the number of the process.
OpenMaker = Callable[[int], MakePart]

# The state of a worker process.
_opens: Callable[[], MakePart]
_make_part: MakePart | None = None


def make_parts(
    open_maker: OpenMaker,
    missing: Sequence[int],
    processes: int,
    show: Callable[[int], None] = lambda block: None,
) -> None:
    """Make every missing part.

    Args:
        open_maker: the function that opens what a process needs; it can be pickled.
        missing: the numbers of the blocks to work on.
        processes: the number of processes that work side by side; if it is 1, this process works.
        show: a function that is called with the number of each block that is finished.

    Raises:
        InputError: `open_maker`, or the function that it gives, has raised it.
        RuntimeError: a worker was killed; the same call goes on.
    """
    if not missing:
        return
    if processes == 1:
        make_part = open_maker(0)
        for block in missing:
            make_part(block, _ignore)
            show(block)
        return
    # Fresh processes: torch's threads and CUDA do not survive a fork.
    context = multiprocessing.get_context("spawn")
    numbers: Any = context.SimpleQueue()
    for number in range(processes):
        numbers.put(number)
    workers = min(processes, len(missing))
    pool = ProcessPoolExecutor(workers, context, _start, (open_maker, numbers))
    try:
        with one_thread_each():
            futures = {pool.submit(_make, block): block for block in missing}
        for future in as_completed(futures):
            future.result()
            show(futures[future])
    except BrokenProcessPool:
        raise RuntimeError("a worker process was killed; the same command goes on") from None
    except BaseException:
        # A part is whole or does not exist, so there is no need to wait for unfinished blocks.
        for process in (pool._processes or {}).values():
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(open_maker: OpenMaker, numbers: Any) -> None:
    """Set up a worker process, which ignores Ctrl-C and ends when its parent ends."""
    global _opens
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _opens = partial(open_maker, numbers.get())


def _make(block: int) -> None:
    global _make_part
    if _make_part is None:  # this is not done in _start, whose errors do not reach the parent
        _make_part = _opens()
    _make_part(block, _ignore)


def _ignore(items: int) -> None:
    """Do nothing, because only whole blocks are shown."""


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
