"""The output of commands: bars and tables on a terminal, else plain lines, and JSON for scripts."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from cluster.logs.metrics_log import STAMP
from gencomp.exit_codes import WARNING

if TYPE_CHECKING:
    from cluster.evaluations.tables import Collected
    from gencomp.recipes.schema import BaseRecipe

SECONDS_BETWEEN_LINES = 10.0

# A function that shows counted work: what is worked on, how much is done, how much there is in all.
Show = Callable[[str, int, int], None]
# A function that tells about other work: what is done, which fraction of it, and further words.
Text = Callable[[], tuple[str, float, str]]


@contextmanager
def progress(verb: str, unit: str) -> Iterator[Show]:
    """Give a function of (what, done, in all) that shows the rate and the remaining time."""
    if sys.stderr.isatty():
        with _bars(verb, unit) as show:
            yield show
    else:
        yield _lines(verb, unit)


class Rate:
    """The speed of some work since it was first seen, which may be in the middle of the work."""

    def __init__(self, done: int, now: float) -> None:
        self._first = done
        self._start = now

    def per_second(self, done: int, now: float) -> float:
        return (done - self._first) / max(now - self._start, 1e-9)

    def text(self, done: int, total: int, now: float) -> str:
        """The speed and the time left, as `350/s, 0:00:16 left`; empty while they are not known."""
        rate = self.per_second(done, now)
        if rate <= 0:
            return ""
        shown = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
        return f"{shown}/s, {duration((total - done) / rate)} left"


def duration(seconds: float) -> str:
    """A duration in hours, minutes and seconds, as `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def short_duration(seconds: float | None) -> str:
    """A duration as `1:02:03`, or as `2:03` below an hour; empty if it is not known."""
    if seconds is None:
        return ""
    text = duration(seconds)
    return text.removeprefix("0:") if seconds < 3599.5 else text


def print_conversions(counts: Mapping[str, int], images: int) -> None:
    """Say what was done to how many of the images, as they were not RGB of 8 bits or not opaque."""
    for what, count in sorted(counts.items()):
        print(f"{what}: {count} of {images} images")


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], remark: str = ""
) -> None:
    """Print a table of strings, below a title and a remark unless they are empty.

    On a terminal the table is drawn; elsewhere it is printed as aligned lines.
    """
    if sys.stdout.isatty():
        draw_table("\n".join(filter(None, (title, remark))), columns, rows)
        return
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    if title:
        print(f"{title}:")
    if remark:
        print(("  " if title else "") + remark)
    for row in (columns, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(("  " if title else "") + "  ".join(cells).rstrip())


def draw_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    colours: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Draw a table of strings on a terminal, with a title unless it is empty.

    Args:
        title: The title of the table.
        columns: The headings of the columns.
        rows: The texts of the cells, which are shown whole and unchanged.
        colours: The colours of certain texts.

    Raises:
        ImportError: The package that draws is not installed.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text as RichText

    table = Table(title=title or None, title_justify="left")
    for heading in columns:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(RichText(cell, colours.get(cell, "")) for cell in row))
    Console().print(table)


@contextmanager
def only_json(wanted: bool) -> Iterator[Callable[[Any], None]]:
    """Keep standard output for one JSON document, where a script wants one.

    What the body and its child processes print goes to standard error meanwhile. The function that
    is given takes the document, which is printed after the body, but not if the body raises.

    Args:
        wanted: Whether there is to be a document; if not, nothing is changed or added.
    """
    documents: list[Any] = []
    if not wanted:
        yield documents.append
        return
    sys.stdout.flush()
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield documents.append
    finally:
        os.dup2(out, 1)
        os.close(out)
    for document in documents:
        print_json(document)


def print_json(document: Any) -> None:
    """Print a document as JSON, in which paths are text and numbers that are not finite are null.

    Args:
        document: Mappings, sequences, dataclasses and named tuples of such values.
    """
    print(json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def show(found: Collected) -> None:
    """Print what was collected: tables and notes, and warnings on the error stream."""
    for number, table in enumerate(found.tables):
        if number:
            print()
        print_table(table.title, table.header, table.rows, table.remark)
    for note in found.notes:
        print(note)
    for warning in found.warnings:
        print(f"{WARNING}{warning}", file=sys.stderr)


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


@contextmanager
def bar(text: Text) -> Iterator[Callable[[], None]]:
    """Show a bar while the body runs; each call of the function that is given may update the bar.

    Args:
        text: The function that tells about the work; it is called at most once a second.
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
            if due(SECONDS_BETWEEN_LINES):
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


class TrainingLines:
    """Shows the rows of a run's metrics log as they are written, and where its first pictures are.

    Args:
        recipe: The recipe of the run.
        path: The directory of the run.
    """

    def __init__(self, recipe: BaseRecipe, path: Path) -> None:
        training = recipe.training
        self._unit = "step" if training.steps is not None else "epoch"
        self._total = float(training.steps or training.epochs or 1)
        self._path = path
        self._pictures_shown = False
        self._last = 0.0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if sys.stdout.isatty():
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[text]}"),
            )
            self._bar.start()
            self._task = self._bar.add_task(
                str(self._path), total=self._total, text="starting workers"
            )
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, row: Mapping[str, Any]) -> None:
        """Show a row of the log: every row of an evaluation, training rows every few seconds."""
        self._show_first_pictures()
        text = "  ".join(
            f"{name} {value:.4g}"
            for name, value in row.items()
            if name not in STAMP and value is not None
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=row[self._unit], text=text)
            return
        evaluation = "samples_per_second" not in row
        if evaluation or time.monotonic() - self._last > SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            print(f"  step {row['step']} ({row[self._unit] / self._total:.0%})  {text}", flush=True)

    def _show_first_pictures(self) -> None:
        """Say once where a grid of pictures lies."""
        if self._pictures_shown or not (grids := sorted((self._path / "samples").glob("*.png"))):
            return
        self._pictures_shown = True
        print(f"  first pictures: {grids[-1].absolute()}", flush=True)
