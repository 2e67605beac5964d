"""What runs inside a job of an evaluation, and goes on from its files after every interruption.

submitit pickles these objects, so they hold names and small numbers only. On the preemption signal
it calls `checkpoint` in the signal handler, stores the answer and requeues the job; every job goes
on from its files, so the answer is a fresh copy. SIGTERM (`scancel`, or a cluster that preempts
without a warning signal) saves the work and ends the job.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Self

from submitit.helpers import DelayedSubmission

from cluster.evaluations.work import MakePart, Work
from slurm.jobs.progress_file import ProgressFile

SAVE_SECONDS = 30.0


class Restartable(ABC):
    """A job whose work is saved now and then, and whenever it is told to leave.

    Attributes:
        name: the name of the job.
        directory: the directory of the evaluation.
        save_seconds: the time between two times that the job saves.
    """

    def __init__(self, name: str, directory: str, save_seconds: float | None = None) -> None:
        self.name, self.directory = name, directory
        self.save_seconds = SAVE_SECONDS if save_seconds is None else save_seconds
        self._open: Work | None = None

    @abstractmethod
    def __call__(self) -> None: ...

    def checkpoint(self) -> DelayedSubmission:
        """Save, then let submitit requeue; called in the signal handler."""
        if self._open is not None:
            self._open.save()
        return DelayedSubmission(self.again())

    def again(self) -> Restartable:
        """The job for its next attempt."""
        return type(self)(self.name, self.directory, self.save_seconds)

    def work(self, work: Work, report: ProgressFile, before: int = 0) -> None:
        """Go on to the end of a work, and finish it.

        Args:
            work: at any of its steps.
            report: how far the job is.
            before: the steps of earlier works.
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


class WholeBlocks(ABC):
    """A job that makes the parts of some blocks in one go each, and skips finished ones.

    Such a block is small: a job that must stop drops the one it is at, and the next attempt makes
    it again.
    """

    def __init__(self, name: str, directory: str, blocks: Sequence[int]) -> None:
        self.name, self.directory = name, directory
        self.blocks = [int(block) for block in blocks]

    @abstractmethod
    def __call__(self) -> None: ...

    def checkpoint(self) -> DelayedSubmission:
        """Requeue as it is; called in the signal handler: what is finished lies in the parts."""
        return DelayedSubmission(self._again())

    def _again(self) -> Self:
        return type(self)(self.name, self.directory, self.blocks)

    def make_parts(
        self,
        sizes: Sequence[int],
        missing: Sequence[int],
        open_maker: Callable[[], MakePart],
        report: ProgressFile,
    ) -> None:
        """Make the parts of the job's blocks that are missing.

        Args:
            sizes: the number of items of every block of the evaluation.
            missing: the blocks without a part.
            open_maker: called once, if there is anything to do.
            report: how far the job is.
        """
        make, done = None, 0
        for block in self.blocks:
            if block in missing:
                if make is None:
                    make = open_maker()
                    report.began(done)
                before = done
                make(block, lambda items, before=before: report(before + items))  # type: ignore[misc]
            done += sizes[block]
            report.done = done
