"""Structured logs of a run: what each process did, one JSON object a line, in RUN/logs.

    rank-00000.jsonl   a worker's log, over all attempts
    driver.jsonl       the log of the process that starts the workers

Every line has `time` (UTC), `level`, `run`, `trial`, `rank` (null for the driver), `step`, `host`,
`pid` and `message`. Lines with an `event` are for programs:

    start           an attempt begins: `world`, `device`, `versions`; it goes on from `step`
    stalled         a worker made no progress: `stack` of all its threads; the process ends
    failed          an error ended the process's work: `traceback`
    workers_failed  the driver's word on its workers: `ranks`; they may be started again
    end             an orderly end: `outcome` is finished or stopped

A start takes about 350 bytes, any other line 200 to 500, an error or a stack some 5000. One line is
written for each start, warning and end: some 600 bytes an attempt and rank, 0.3 MB for 512 ranks.
Files only grow; nothing rotates them.
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

# Of these also what is not a warning.
_OURS = ("cluster", "gencomp", "shards", "slurm", "sweeps")
_TRIALS = "trials"


def of_rank(run: Path, rank: int) -> Path:
    """Where the log of a worker lies."""
    return run / "logs" / f"rank-{rank:05d}.jsonl"


def of_ranks(run: Path) -> list[Path]:
    """The logs of all workers there ever were, by rank."""
    return sorted((run / "logs").glob("rank-*.jsonl"))


def of_driver(run: Path) -> Path:
    """Where the log of the driver lies."""
    return run / "logs" / "driver.jsonl"


def details(**values: Any) -> dict[str, Any]:
    """For `extra=` of a logging call: more fields of its line, such as `event`."""
    return {"details": values}


class Journal:
    """The log of one process of a run.

    Attributes:
        path: the file.
        step: training steps done, written into every line; None where there are no steps.
    """

    def __init__(self, run: Path, rank: int | None) -> None:
        self.path = of_driver(run) if rank is None else of_rank(run, rank)
        self.step: int | None = None
        self._names = _names(run)
        self._rank = rank
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        # A line that a crash cut short must not swallow the next one.
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def write(self, level: str, message: str, **values: Any) -> None:
        """Append a line, on the disk when it has an event; takes no locks of Python's logging."""
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
    """Ray, for one, logs every report."""
    return record.levelno >= (logging.INFO if _is_ours(record) else logging.WARNING)


class _Handler(logging.Handler):
    """Python's logging, written into a journal."""

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
        except OSError:  # a full disk must not end what is logged, nor hide it behind tracebacks
            pass
        except Exception:
            self.handleError(record)


class _Console(logging.Handler):
    """Python's logging in a readable form, on the error stream."""

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
        run: its directory.
        rank: of the worker; None for the driver.
        console: also show them, unless whoever set up logging before already does.
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
        if not (isinstance(error, SystemExit) and not error.code):  # who leaves has not failed
            message = " ".join(f"{type(error).__name__}: {error}".split())
            log.error(message, exc_info=True, extra=details(event="failed"))
        raise
    finally:
        logging.captureWarnings(False)
        for handler in handlers:
            root.removeHandler(handler)
        for logger, level in zip(ours, levels, strict=True):
            logger.setLevel(level)
        mine.close()


def note(run: Path, level: str, message: str, **values: Any) -> None:
    """Append a line to the driver's log, from a process that works for it; none to a full disk."""
    with suppress(OSError), closing(Journal(run, None)) as mine:
        mine.write(level, message, **values)


@contextmanager
def driving(
    run: Path, predecessor: str | None, show: Callable[[Row], None]
) -> Iterator[Callable[[], None]]:
    """The driver's log, from its start to its end.

    Args:
        run: its directory.
        predecessor: the dead driver that it was taken from.
        show: called with each new line of this log and of rank 0's.

    Yields:
        What looks for new lines once.
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
    """A line for people: `14:03:07 rank 0: WARNING: …`."""
    clock = datetime.fromisoformat(row["time"]).astimezone().strftime("%H:%M:%S")
    who = "driver" if row.get("rank") is None else f"rank {row['rank']}"
    level = "" if row["level"] == "INFO" else f"{row['level']}: "
    return f"{clock} {who}: {level}{row['message']}"


class Relay:
    """Shows what the driver and rank 0 log from now on; of failures, the driver's word suffices.

    Args:
        run: its directory.
        show: called with each new line.
    """

    def __init__(self, run: Path, show: Callable[[Row], None]) -> None:
        self._show = show
        self._offsets = {path: json_lines.end(path) for path in (of_driver(run), of_rank(run, 0))}

    def __call__(self) -> None:
        """Look once."""
        for path, offset in self._offsets.items():
            rows, self._offsets[path] = json_lines.follow(path, offset)
            for row in rows:
                if row.get("rank") is None or row.get("event") not in ("stalled", "failed"):
                    self._show(row)


def _names(run: Path) -> dict[str, str | None]:
    """A trial's directory is SWEEP/trials/ID."""
    path = run.resolve()
    if path.parent.name == _TRIALS:
        return {"run": path.parent.parent.name, "trial": path.name}
    return {"run": path.name, "trial": None}


def _time() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
