"""Sharing the blocks of a measurement among processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

import torch

from cluster.measurement.plan import Measurement, open_measurement
from cluster.measurement.work import Workplace, make_part, open_workplace

# Of a worker process.
_opens: Callable[[], Workplace]
_place: Workplace | None = None


def measure(
    measurement: Measurement, processes: int, show: Callable[[int], None] = lambda block: None
) -> None:
    """Make every missing part.

    Args:
        measurement: what is there is kept.
        processes: how many work side by side; with one, this process works itself.
        show: called with each block that is finished.

    Raises:
        InputError: as `open_workplace` and `make_part`.
        RuntimeError: a worker was killed; the same call goes on.
    """
    missing = measurement.missing()
    if not missing:
        return
    if processes == 1:
        place = open_workplace(measurement)
        for block in missing:
            make_part(place, block)
            show(block)
        return
    # Fresh processes: torch's threads and CUDA do not survive a fork.
    context = multiprocessing.get_context("spawn")
    seats: Any = context.SimpleQueue()
    for seat in range(processes):
        seats.put(seat)
    workers = min(processes, len(missing))
    pool = ProcessPoolExecutor(workers, context, _start, (str(measurement.path), seats))
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


def _start(directory: str, seats: Any) -> None:
    """Set up a worker: it ends with its parent, which alone hears Ctrl-C."""
    global _opens
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _opens = partial(_open, directory, seats.get())


def _make(block: int) -> None:
    global _place
    if _place is None:  # not in _start, where a refusal would not reach the parent
        _place = _opens()
    make_part(_place, block)


def _open(directory: str, seat: int) -> Workplace:
    return open_workplace(open_measurement(directory), seat % max(torch.cuda.device_count(), 1))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
