"""What runs inside a job: the pilot, the work on some blocks, and the merging of their parts.

submitit pickles these objects, so they hold names and small numbers only. On the preemption signal
it calls `checkpoint` in the signal handler, stores the answer and requeues the job; every job goes
on from its files, so the answer is a fresh copy. SIGTERM (`scancel`, or a cluster that preempts
without a warning signal) saves the chains and ends the job.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from submitit.helpers import DelayedSubmission

from slurm.directory import JobDirectory
from slurm.plan import open_evaluation
from slurm.report import Report, reporting

SAVE_SECONDS = 30.0


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


@contextmanager
def working(evaluation: JobDirectory, name: str, total: int) -> Iterator[Report]:
    """As `reporting`, with as many threads as the job has CPUs."""
    import torch

    torch.set_num_threads(evaluation.cpus)
    with reporting(evaluation.progress(name), name, total) as report:
        yield report
