"""How far a command is: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SECONDS_BETWEEN_LINES = 10.0

# What is done, which fraction of it, and more words.
Text = Callable[[], tuple[str, float, str]]


@contextmanager
def bar(text: Text) -> Iterator[Callable[[], None]]:
    """While the body runs, the function given looks again, as often as it is called.

    Args:
        text: asked at most once a second.
    """
    last = time.monotonic()

    def due(seconds: float) -> bool:
        nonlocal last
        if time.monotonic() - last <= seconds:
            return False
        last = time.monotonic()
        return True

    if not sys.stdout.isatty():

        def line() -> None:
            if due(_SECONDS_BETWEEN_LINES):
                title, fraction, words = text()
                print(f"  {title} {fraction:.0%}  {words}", flush=True)

        yield line
        return

    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
    with Progress(*columns, transient=True) as drawn:
        task = drawn.add_task("", total=1.0, text="starting")

        def update() -> None:
            if due(1.0):
                title, fraction, words = text()
                drawn.update(task, description=title, completed=fraction, text=words)

        yield update
