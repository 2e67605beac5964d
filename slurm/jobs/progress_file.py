"""The progress file of a job, and how a job ends."""

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
    """The progress file of a job in the directory that its job set has."""
    return directory / "progress" / f"{job}.json"


class Sampler(Protocol):
    """Work that may have an effective sample size."""

    @property
    def ess(self) -> float | None: ...


class ProgressFile:
    """The progress file of a job, replaced at most once a second.

    Attributes:
        done, total: steps.
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
        """Work starts here: rates count from now."""
        self._first, self._since = done, time.monotonic()
        self(done)

    def __call__(self, done: int, work: Sampler | None = None) -> None:
        """
        Args:
            done: steps.
            work: asked for its effective sample size, where that is written.
        """
        self.done = done
        if time.monotonic() - self._last > _REPORT_SECONDS:
            if work is not None:
                self.look(work)
            self.write()

    def look(self, work: Sampler) -> None:
        """Take the effective sample size of a work, if it has one, for what is written next."""
        if (ess := work.ess) is not None:
            self._values["ess"] = ess

    def write(self, ended: str | None = None) -> None:
        """
        Args:
            ended: how the job ended: done, stopped, or failed and why.
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
        with suppress(OSError):  # it is only looked at; a full disk has other ways to end a job
            files.write_json(self._path, self._values, durable=False)


def read(path: Path) -> dict[str, Any]:
    """A progress file; empty where there is none, or a node's crash has cut it."""
    try:
        return files.read_json(path) or {}
    except ValueError:
        return {}


@contextmanager
def reporting(path: Path, name: str, total: int) -> Iterator[ProgressFile]:
    """The answer to SIGTERM, and a progress file that says how the job ended.

    Args:
        path: of the progress file.
        name: of the job.
        total: steps.
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
    """submitit refuses to store a checkpoint while one lies there that a killed attempt left."""
    if "SUBMITIT_FOLDER" in os.environ:
        stored = JobEnvironment().paths.submitted_pickle
        stored.with_name(f"{stored.name}.save_tmp").unlink(missing_ok=True)


def _leave(signum: int, frame: Any) -> None:
    # Whoever asks may ask again, and saving must not be cut short.
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit(TERMINATED)
