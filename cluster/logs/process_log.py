"""Structured logs of a run in RUN/logs: what each process did, one JSON object per line.

    rank-00000.jsonl   a worker's log, over all attempts
    driver.jsonl       the log of the process that starts the workers

Every line has `time` (UTC), `level`, `run`, `trial`, `rank` (null for the driver), `step`, `host`,
`pid` and `message`. Lines with an `event` are meant for programs:

    start           an attempt begins at `step`, with `world`, `device` and `versions`
    stalled         a worker made no progress and ends, with the `stack` of all its threads
    failed          an error ended the process's work, with its `traceback`
    workers_failed  the driver reports the `ranks` that failed; they may be started again; `said`,
                    where Ray did not start them, is the end of what the worker wrote on its error
                    stream, at most 5000 characters
    end             the process ends in order, with `outcome` finished or stopped

A start takes about 350 bytes, any other line 200 to 500, an error or a stack some 5000. One line is
written for each start, warning and end: some 600 bytes per attempt and rank, 0.3 MB for 512 ranks.
The files only grow, since nothing rotates them.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster.logs import json_lines

log = logging.getLogger(__name__)

Row = Mapping[str, Any]

# The packages whose records are logged from INFO on; of all others only warnings are logged.
_OURS = ("cluster", "gencomp", "shards", "slurm", "sweeps")
_TRIALS = "trials"


def of_rank(run: Path, rank: int) -> Path:
    """The path of a worker's log."""
    return run / "logs" / f"rank-{rank:05d}.jsonl"


def of_ranks(run: Path) -> list[Path]:
    """The paths of the logs of all workers that the run ever had, by rank."""
    return sorted((run / "logs").glob("rank-*.jsonl"))


def of_driver(run: Path) -> Path:
    """The path of the driver's log."""
    return run / "logs" / "driver.jsonl"


def details(**values: Any) -> dict[str, Any]:
    """The value of `extra=` that adds fields, such as `event`, to the line of a logging call."""
    return {"details": values}


class Journal:
    """The log of one process of a run.

    Attributes:
        path: the file.
        step: the number of training steps done, written into every line; None if there are none.
    """

    def __init__(self, run: Path, rank: int | None) -> None:
        self.path = of_driver(run) if rank is None else of_rank(run, rank)
        self.step: int | None = None
        self._names = _names(run)
        self._rank = rank
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        # A line that a crash cut short must not swallow the next one.
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def write(self, level: str, message: str, **values: Any) -> None:
        """Append a line, synced to the disk if it has an event. Python's logging is not locked."""
        row = {
            "time": _time(),
            "level": level,
            **self._names,
            "rank": self._rank,
            "step": self.step,
            "host": platform.node(),
            "pid": os.getpid(),
            "message": message,
            **values,
        }
        os.write(self._file, (json.dumps(row, default=str) + "\n").encode())
        if "event" in values:
            os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in _OURS


def _matters(record: logging.LogRecord) -> bool:
    """Whether a record is logged; other packages, such as Ray, log too much below warnings."""
    return record.levelno >= (logging.INFO if _is_ours(record) else logging.WARNING)


class _Handler(logging.Handler):
    """A handler that writes Python's logging into a journal."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.addFilter(_matters)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        try:
            values = dict(getattr(record, "details", {}))
            if not _is_ours(record):
                values["logger"] = record.name
            if record.exc_info and record.exc_info[0]:
                values["traceback"] = "".join(traceback.format_exception(*record.exc_info))
            self._journal.write(record.levelname, record.getMessage(), **values)
        except OSError:  # a full disk must not end the work, nor hide its errors behind others
            pass
        except Exception:
            self.handleError(record)


class _Console(logging.Handler):
    """A handler that prints Python's logging in a readable form on the error stream."""

    def __init__(self, rank: int | None) -> None:
        super().__init__()
        self.addFilter(_matters)
        self._rank = rank

    def emit(self, record: logging.LogRecord) -> None:
        row = {"time": _time(), "level": record.levelname, "rank": self._rank}
        print(readable({**row, "message": record.getMessage()}), file=sys.stderr, flush=True)


@contextmanager
def journal(run: Path, rank: int | None = None, console: bool = False) -> Iterator[Journal]:
    """While the body runs, Python's logging and warnings go into a log of the run.

    Args:
        run: the run's directory.
        rank: the worker's rank; None for the driver.
        console: whether to print them as well, unless logging has a handler already.
    """
    mine = Journal(run, rank)
    root = logging.getLogger()
    handlers: list[logging.Handler] = [_Handler(mine)]
    if console and not root.handlers:
        handlers.append(_Console(rank))
    ours = [logging.getLogger(name) for name in _OURS]
    levels = [logger.level for logger in ours]
    for logger in ours:
        logger.setLevel(min(logger.level or logging.INFO, logging.INFO))
    for handler in handlers:
        root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield mine
    except BaseException as error:
        if not (isinstance(error, SystemExit) and not error.code):  # exit code 0 is no failure
            log.error(one_line(error), exc_info=True, extra=details(event="failed"))
        raise
    finally:
        logging.captureWarnings(False)
        for handler in handlers:
            root.removeHandler(handler)
        for logger, level in zip(ours, levels, strict=True):
            logger.setLevel(level)
        mine.close()


def one_line(error: BaseException) -> str:
    """The kind of an error and what it says, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def note(run: Path, level: str, message: str, **values: Any) -> None:
    """Append a line to the driver's log, on its behalf, unless the disk is full."""
    with suppress(OSError), closing(Journal(run, None)) as mine:
        mine.write(level, message, **values)


@contextmanager
def driving(
    run: Path, predecessor: str | None, show: Callable[[Row], None]
) -> Iterator[Callable[[], None]]:
    """The driver's log, from the driver's start to its end.

    Args:
        run: the run's directory.
        predecessor: the dead driver from which this one has taken over the run, if there is one.
        show: a function that is called with each new line of this log and of rank 0's log.

    Yields:
        A function that looks for new lines once.
    """
    with journal(run):
        relay = Relay(run, show)
        after = f", {predecessor} having died" if predecessor else ""
        log.info("workers are started%s", after, extra=details(event="start"))
        try:
            yield relay
            outcome = "finished" if (run / "result.json").exists() else "stopped"
            log.info("%s", outcome, extra=details(event="end", outcome=outcome))
        finally:
            relay()


def readable(row: Row) -> str:
    """A row as a line for people: `14:03:07 rank 0: WARNING: …`."""
    clock = datetime.fromisoformat(row["time"]).astimezone().strftime("%H:%M:%S")
    who = "driver" if row.get("rank") is None else f"rank {row['rank']}"
    level = "" if row["level"] == "INFO" else f"{row['level']}: "
    return f"{clock} {who}: {level}{row['message']}"


class Relay:
    """Shows what the driver and rank 0 log from now on; failures only as the driver reports them.

    Args:
        run: the run's directory.
        show: a function that is called with each new line.
    """

    def __init__(self, run: Path, show: Callable[[Row], None]) -> None:
        self._show = show
        self._offsets = {path: json_lines.end(path) for path in (of_driver(run), of_rank(run, 0))}

    def __call__(self) -> None:
        """Look for new lines once."""
        for path, offset in self._offsets.items():
            rows, self._offsets[path] = json_lines.follow(path, offset)
            for row in rows:
                if row.get("rank") is None or row.get("event") not in ("stalled", "failed"):
                    self._show(row)


def _names(run: Path) -> dict[str, str | None]:
    """The names of the run and of the trial; a trial's directory is SWEEP/trials/ID."""
    path = run.resolve()
    if path.parent.name == _TRIALS:
        return {"run": path.parent.parent.name, "trial": path.name}
    return {"run": path.name, "trial": None}


def _time() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
