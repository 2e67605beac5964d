"""A pool of processes for long tasks: results in order, progress from within, and a prompt end."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from shards.errors import ShardError

Task = TypeVar("Task")
Result = TypeVar("Result")
Report = Callable[[int], None]

WATCH_SECONDS = 0.2
# What the libraries of parallel products read when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def usable_cpus() -> int:
    """The number of CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(
    function: Callable[[Task, Report], Result],
    tasks: Iterable[Task],
    processes: int,
    watch: Callable[[Sequence[int]], None],
) -> Generator[Result, None, None]:
    """Give the results of `function(task, report)`, one for each task, in the order of the tasks.

    Args:
        function: A picklable function, which may call `report(count)` with how much of its task is
            done.
        tasks: The tasks. They are taken as they are needed: at most `2 * processes` of them are
            taken before their results are given.
        processes: The number of worker processes; 1 means this very process.
        watch: A function that is called a few times a second with the counts, in order, of the
            tasks that were taken and whose results were not yet given.

    The first task in order that raises an error ends the iteration with that error, so errors do
    not depend on timing. However the iteration ends, also when this process is killed, the workers
    end at once. Raises `ShardError` when a worker is killed.
    """
    if processes == 1:
        for task in tasks:
            yield function(task, _Throttled(watch))
        return
    window = 2 * processes
    context = multiprocessing.get_context("spawn")
    counts = context.RawArray("q", window)
    theirs, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        processes, context, _start_worker, (function, counts, theirs, os.getcwd())
    )
    waiting: deque[Future[Result]] = deque()
    remaining = enumerate(tasks)

    def submit(number: int) -> None:
        for position, task in itertools.islice(remaining, number):
            counts[position % window] = 0
            with _interrupts_held(), one_thread_each():
                waiting.append(pool.submit(_run, task, position % window))

    try:
        submit(window)
        for first in itertools.count():
            if not waiting:
                break
            while not wait([waiting[0]], timeout=WATCH_SECONDS).done:
                watch([counts[i % window] for i in range(first, first + len(waiting))])
            yield waiting.popleft().result()
            submit(1)
        pool.shutdown()
    except BrokenProcessPool:
        raise ShardError(
            "a worker process was killed (perhaps by the system, because memory ran out) or could "
            'not start (a script needs `if __name__ == "__main__":` around what it calls): run the '
            "same command again"
        ) from None
    finally:
        ours.close()
        pool.shutdown(cancel_futures=True)
        theirs.close()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let Python processes that the body starts compute with one thread each.

    Each has a CPU of its own, and the threads of NumPy's products would wait for each other.
    """
    with environment(dict.fromkeys(_THREADS, "1")):
        yield


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment for processes that the body starts."""
    previous = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Throttled:
    """A report for tasks in this very process, which calls `watch` only a few times a second."""

    def __init__(self, watch: Callable[[Sequence[int]], None]) -> None:
        self._watch = watch
        self._next = 0.0

    def __call__(self, count: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + WATCH_SECONDS
            self._watch([count])


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Block SIGINT while workers start: they inherit this, so Ctrl-C reaches only the parent.

    The workers end with the parent.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# The function and the counts that a worker process was started with.
_function: Callable[[Any, Report], Any]
_counts: Any


def _start_worker(
    function: Callable[[Any, Report], Any], counts: Any, parent: Connection, directory: str
) -> None:
    global _function, _counts
    _function, _counts = function, counts
    os.chdir(directory)  # `spawn` starts in the directory in which the parent was started
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Connection) -> None:
    """End at once when the parent closes its end of the pipe, or dies and so closes it."""
    parent.poll(None)
    os._exit(1)


def _run(task: Any, slot: int) -> Any:
    def report(count: int) -> None:
        _counts[slot] = count

    return _function(task, report)
