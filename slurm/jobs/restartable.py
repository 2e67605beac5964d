"""The objects that run inside the jobs of evaluations, and resume from files when interrupted.

submitit pickles these objects, so they hold names and small numbers only. On the preemption signal
submitit calls `checkpoint` in the signal handler, stores the object that it gives, and requeues the
job. Every job resumes from its files, so that object is a fresh copy. SIGTERM (from `scancel`, or a
cluster that preempts without a warning signal) saves the work and ends the job.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

from submitit.helpers import DelayedSubmission

from cluster.evaluations.work import Work
from slurm.jobs.progress_file import ProgressFile

SAVE_SECONDS = 30.0


class Restartable(ABC):
    """A job whose work is saved at intervals, and whenever the job is asked to end.

    Attributes:
        name: the name of the job.
        directory: the directory of the evaluation.
        save_seconds: the interval between saves, in seconds.
    """

    def __init__(self, name: str, directory: str, save_seconds: float | None = None) -> None:
        self.name, self.directory = name, directory
        self.save_seconds = SAVE_SECONDS if save_seconds is None else save_seconds
        self._open: Work | None = None

    @abstractmethod
    def __call__(self) -> None: ...

    def checkpoint(self) -> DelayedSubmission:
        """Save, and let submitit requeue the job. This is called in the signal handler."""
        if self._open is not None:
            self._open.save()
        return DelayedSubmission(self.again())

    def again(self) -> Restartable:
        """The object for the job's next attempt."""
        return type(self)(self.name, self.directory, self.save_seconds)

    def work(self, work: Work, report: ProgressFile, before: int = 0) -> None:
        """Do the work to its end, and finish it.

        Args:
            work: the work, at any of its steps.
            report: the progress file of the job.
            before: the number of steps of the job's earlier work.
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
