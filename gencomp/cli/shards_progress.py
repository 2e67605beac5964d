"""Progress of work on shard sets: a bar on a terminal, else a line every ten seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 10.0
Show = Callable[[str, int, int], None]


@contextmanager
def progress(verb: str, unit: str) -> Iterator[Show]:
    """Gives a function of (what, done, in all) that shows the rate and the remaining time."""
    if sys.stderr.isatty():
        with _bars(verb, unit) as show:
            yield show
    else:
        yield _lines(verb, unit)


class Rate:
    """How fast something goes on, from where it was first seen: a build that was killed goes on
    in the middle."""

    def __init__(self, done: int, now: float) -> None:
        self._first = done
        self._start = now

    def per_second(self, done: int, now: float) -> float:
        return (done - self._first) / max(now - self._start, 1e-9)

    def text(self, done: int, total: int, now: float) -> str:
        """`350/s, 0:00:16 left`; nothing as long as nothing can be said."""
        rate = self.per_second(done, now)
        if rate <= 0:
            return ""
        shown = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
        return f"{shown}/s, {duration((total - done) / rate)} left"


def duration(seconds: float) -> str:
    """`1:02:03`: hours, minutes, seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _lines(verb: str, unit: str) -> Show:
    last = time.monotonic()
    rates: dict[str, Rate] = {}

    def show(what: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        rate = rates.setdefault(what, Rate(done, now))
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            words = filter(None, [f"{done} of {total} {unit}", rate.text(done, total, now)])
            print(f"{verb} {what}: {', '.join(words)}", file=sys.stderr, flush=True)

    return show


@contextmanager
def _bars(verb: str, unit: str) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(f"{{task.completed:.0f}} of {{task.total:.0f}} {unit}  {{task.fields[rate]}}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, tuple[TaskID, Rate]] = {}

        def show(what: str, done: int, total: int) -> None:
            now = time.monotonic()
            if what not in tasks:
                task = bars.add_task(f"{verb} {what}", total=total, rate="")
                tasks[what] = task, Rate(done, now)
            task, rate = tasks[what]
            bars.update(task, completed=done, rate=rate.text(done, total, now))

        yield show
