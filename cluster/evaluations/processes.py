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

# Opens what the blocks of one process share; called in that process with its number.
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
        open_maker: can be pickled.
        missing: the blocks to work on.
        processes: how many work side by side; with one, this process works itself.
        show: called with each block that is finished.

    Raises:
        InputError: as `open_maker` and what it returns.
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
        futures = {pool.submit(_make, block): block for block in missing}
        for future in as_completed(futures):
            future.result()
            show(futures[future])
    except BrokenProcessPool:
        raise RuntimeError("a worker process was killed; the same command goes on") from None
    except BaseException:
        # Parts are whole or not there, so nobody waits for blocks that are under way.
        for process in (pool._processes or {}).values():
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(open_maker: OpenMaker, numbers: Any) -> None:
    """Set up a worker: it ends with its parent, which alone hears Ctrl-C."""
    global _opens
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _opens = partial(open_maker, numbers.get())


def _make(block: int) -> None:
    global _make_part
    if _make_part is None:  # not in _start, where a refusal would not reach the parent
        _make_part = _opens()
    _make_part(block, _ignore)


def _ignore(items: int) -> None:
    """Nobody watches the items of a block."""


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
