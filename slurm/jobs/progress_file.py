"""The progress file of a job, and the handling of its end."""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from submitit import JobEnvironment

from cluster import files
from gencomp.exit_codes import TERMINATED

_REPORT_SECONDS = 1.0


def progress_path(directory: Path, job: str) -> Path:
    """The path of a job's progress file in the directory of its job set."""
    return directory / "progress" / f"{job}.json"


class Sampler(Protocol):
    """The interface of work that may have an effective sample size."""

    @property
    def ess(self) -> float | None: ...


class ProgressFile:
    """The progress file of a job, replaced at most once a second.

    Attributes:
        done, total: the number of steps done, and of all steps.
    """

    def __init__(self, path: Path, name: str, total: int) -> None:
        before = read(path)
        self._path, self._last = path, 0.0
        self.done = self._first = 0
        self.total = total
        self._since = time.monotonic()
        self._values: dict[str, Any] = {
            "job": name,
            "attempt": before.get("attempt", 0) + 1,
            "host": platform.node(),
            "pid": os.getpid(),
            "started": time.time(),
        }

    def began(self, done: int) -> None:
        """Report that work begins with some steps done; the rate is measured from now on."""
        self._first, self._since = done, time.monotonic()
        self(done)

    def __call__(self, done: int, work: Sampler | None = None) -> None:
        """Report the number of steps done.

        Args:
            done: the number of steps done.
            work: the work, whose effective sample size is written as well.
        """
        self.done = done
        if time.monotonic() - self._last > _REPORT_SECONDS:
            if work is not None:
                self.look(work)
            self.write()

    def look(self, work: Sampler) -> None:
        """Take the effective sample size of some work, if it has one, into the next report."""
        if (ess := work.ess) is not None:
            self._values["ess"] = ess

    def write(self, ended: str | None = None) -> None:
        """Write the file, unless a later attempt has begun meanwhile and writes it.

        An attempt may live on after Slurm has lost its node and has started the job elsewhere.

        Args:
            ended: the end of the job in words: done, stopped, or failed with the reason.
        """
        now = time.monotonic()
        advanced = self.done - self._first
        self._last = now
        self._values.update(
            updated=time.time(),
            done=self.done,
            total=self.total,
            seconds_per_step=(now - self._since) / advanced if advanced > 0 else None,
            ended=ended,
        )
        with suppress(OSError):  # the file is only for display, and must not end a job
            if read(self._path).get("attempt", 0) <= self._values["attempt"]:
                files.write_json(self._path, self._values, durable=False)


def read(path: Path) -> dict[str, Any]:
    """The content of a progress file; empty if there is none, or a node's crash has damaged it."""
    try:
        return files.read_json(path) or {}
    except ValueError:
        return {}


@contextmanager
def reporting(path: Path, name: str, total: int) -> Iterator[ProgressFile]:
    """While the body runs, SIGTERM ends it, and a progress file says how the job goes and ends.

    Args:
        path: the progress file.
        name: the job's name.
        total: the number of all steps.
    """
    _clear_stale_pickle()
    report = ProgressFile(path, name, total)
    report.write()
    previous = signal.signal(signal.SIGTERM, _leave)
    try:
        yield report
    except (KeyboardInterrupt, SystemExit):
        report.write("stopped")
        raise
    except Exception as error:
        report.write(
            f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        )
        raise
    else:
        report.write("done")
    finally:
        signal.signal(signal.SIGTERM, previous)


def _clear_stale_pickle() -> None:
    """Remove a checkpoint that a killed attempt has left, or submitit refuses to store another."""
    if "SUBMITIT_FOLDER" in os.environ:
        stored = JobEnvironment().paths.submitted_pickle
        stored.with_name(f"{stored.name}.save_tmp").unlink(missing_ok=True)


def _leave(signum: int, frame: Any) -> None:
    # The signals may come again, and must not interrupt the saving.
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit(TERMINATED)
