"""The job of every kind of evaluation whose blocks are made in one go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

from submitit.helpers import DelayedSubmission

from cluster.evaluations.work import MakePart
from slurm.jobs.progress_file import ProgressFile
from slurm.kinds.evaluation_jobs import EvaluationJobs


class WholeBlocks(ABC):
    """A job that makes the parts of some blocks in one go each, and skips the parts that exist.

    Such a block is small. A job that must end drops the block it is at, and its next attempt makes
    that block again.

    Attributes:
        JOBS: the class of the job set.
        name: the name of the job.
        directory: the directory of the evaluation.
        blocks: the numbers of the job's blocks.
    """

    JOBS: ClassVar[type[EvaluationJobs[Any]]]

    def __init__(self, name: str, directory: str, blocks: Sequence[int]) -> None:
        self.name, self.directory = name, directory
        self.blocks = [int(block) for block in blocks]

    @abstractmethod
    def open_maker(self, directory: Path) -> MakePart:
        """The function that makes parts. It is opened once, if there is anything to do."""

    def __call__(self) -> None:
        jobs = self.JOBS.open(self.directory)
        steps = [jobs.block_steps(block) for block in self.blocks]
        with jobs.working(self.name, sum(steps)) as report:
            make: MakePart | None = None
            for block, length in zip(self.blocks, steps, strict=True):
                done = report.done
                # Another command may have made the part since this job began.
                if not jobs.evaluation.part(block).exists():
                    if make is None:
                        make = self.open_maker(jobs.path)
                        report.began(done)
                    make(block, partial(_advanced, report, done))
                report.done = done + length

    def checkpoint(self) -> DelayedSubmission:
        """Let submitit requeue the job. Nothing is saved, since finished blocks have parts."""
        return DelayedSubmission(self._again())

    def _again(self) -> Self:
        return type(self)(self.name, self.directory, self.blocks)


def _advanced(report: ProgressFile, before: int, items: int) -> None:
    report(before + items)
