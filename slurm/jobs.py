"""What runs inside a job: the pilot, the work on some blocks, and the merging of their parts.

submitit pickles these objects, so they hold names and small numbers only. On the preemption signal
it calls `checkpoint` in the signal handler, stores the answer and requeues the job; every job goes
on from its files, so the answer is a fresh copy. SIGTERM (`scancel`, or a cluster that preempts
without a warning signal) saves the chains and ends the job.
"""

from __future__ import annotations

import os
import platform
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission

from slurm import files
from slurm.directory import JobDirectory
from slurm.plan import open_evaluation

SAVE_SECONDS = 30.0
_REPORT_SECONDS = 1.0
STOPPED = 143


class Work(Protocol):
    """What a job does step by step, and can go on with from its file."""

    @property
    def done(self) -> bool: ...

    @property
    def steps(self) -> int: ...

    @property
    def ess(self) -> float | None: ...

    def advance(self) -> None: ...

    def save(self) -> None: ...

    def finish(self) -> None: ...


class Restartable(ABC):
    """A job whose work is saved now and then, and whenever it is told to leave.

    Attributes:
        name: of the job.
        directory: of the evaluation.
        save_seconds: between two times that it saves.
    """

    def __init__(self, name: str, directory: str, save_seconds: float | None = None) -> None:
        self.name, self.directory = name, directory
        self.save_seconds = SAVE_SECONDS if save_seconds is None else save_seconds
        self._open: Work | None = None

    @abstractmethod
    def __call__(self) -> None: ...

    def checkpoint(self) -> DelayedSubmission:
        """Called in the signal handler: save, then let submitit requeue."""
        if self._open is not None:
            self._open.save()
        return DelayedSubmission(self.again())

    def again(self) -> Restartable:
        """The job for its next attempt."""
        return type(self)(self.name, self.directory, self.save_seconds)

    def work(self, work: Work, report: Report, before: int = 0) -> None:
        """Go on to the end of a work, and finish it.

        Args:
            work: at any of its steps.
            report: how far the job is.
            before: steps of earlier works.
        """
        self._open, saved = work, time.monotonic()
        try:
            report.began(before + work.steps)
            while not work.done:
                work.advance()
                report(before + work.steps, work)
                if time.monotonic() - saved > self.save_seconds:
                    work.save()
                    saved = time.monotonic()
        except (KeyboardInterrupt, SystemExit):
            work.save()
            raise
        report.look(work)
        work.finish()
        self._open = None


class Pilot(Restartable):
    """Finds schedule, metric and step sizes, and freezes them in `tuning.npz`."""

    def __call__(self) -> None:
        evaluation = open_evaluation(self.directory)
        with working(evaluation, self.name, evaluation.pilot_steps) as report:
            if not evaluation.tuning.exists():
                from slurm.tune import open_tuner

                self.work(open_tuner(evaluation), report)
            report.done = evaluation.pilot_steps


class Measure(Restartable):
    """Works on blocks, one after another; finished ones are skipped."""

    def __init__(
        self,
        name: str,
        directory: str,
        blocks: Sequence[int],
        save_seconds: float | None = None,
    ) -> None:
        super().__init__(name, directory, save_seconds)
        self.blocks = [int(block) for block in blocks]

    def again(self) -> Measure:
        return Measure(self.name, self.directory, self.blocks, self.save_seconds)

    def __call__(self) -> None:
        evaluation = open_evaluation(self.directory)
        steps = [evaluation.block_steps(block) for block in self.blocks]
        with working(evaluation, self.name, sum(steps)) as report:
            from slurm.blocks import open_block
            from slurm.workplace import open_workplace

            place = None
            for number, length in zip(self.blocks, steps, strict=True):
                before = report.done
                if not evaluation.part(number).exists():
                    place = place or open_workplace(evaluation)
                    self.work(open_block(place, number), report, before)
                report.done = before + length


class TrainEncoders(Restartable):
    """Trains the encoders of a baseline, one beta after another, and saves after each."""

    def __init__(self, name: str, directory: str, save_seconds: float = 0.0) -> None:
        super().__init__(name, directory, save_seconds)

    def __call__(self) -> None:
        from slurm.baseline import open_baseline

        baseline = open_baseline(self.directory)
        total = baseline.block_steps(0)
        with working(baseline, self.name, total) as report:
            if baseline.missing():
                from slurm.encoders import open_training

                self.work(open_training(baseline), report)
            report.done = total


class Collect:
    """Makes the curve of the parts that there are; a stopped one starts again."""

    def __init__(self, name: str, directory: str) -> None:
        self.name, self.directory = name, directory

    def __call__(self) -> None:
        evaluation = open_evaluation(self.directory)
        with working(evaluation, self.name, 1) as report:
            from slurm.collect import collect

            collect(evaluation)
            report.done = 1

    def checkpoint(self) -> DelayedSubmission:
        return DelayedSubmission(Collect(self.name, self.directory))


class Report:
    """The progress file of a job, replaced at most once a second."""

    def __init__(self, path: Path, name: str, total: int) -> None:
        before = files.read_json(path) or {}
        self._path, self._last = path, 0.0
        self.done = self._first = 0
        self._since = time.monotonic()
        self._values: dict[str, Any] = {
            "job": name,
            "attempt": before.get("attempt", 0) + 1,
            "host": platform.node(),
            "pid": os.getpid(),
            "started": time.time(),
            "total": total,
        }

    def began(self, done: int) -> None:
        """Work starts here: rates count from now."""
        self._first, self._since = done, time.monotonic()
        self(done)

    def __call__(self, done: int, work: Work | None = None) -> None:
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

    def look(self, work: Work) -> None:
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
            seconds_per_step=(now - self._since) / advanced if advanced > 0 else None,
            ended=ended,
        )
        files.write_json(self._path, self._values, durable=False)


@contextmanager
def working(evaluation: JobDirectory, name: str, total: int) -> Iterator[Report]:
    """Threads, the answer to SIGTERM, and a progress file that says how the job ended."""
    import torch

    torch.set_num_threads(evaluation.threads)
    _clear_stale_pickle()
    report = Report(evaluation.progress(name), name, total)
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
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(STOPPED)
