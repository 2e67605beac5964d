"""The curve of trained encoders as one restartable job."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import ClassVar

from cluster.evaluations.encoders.plan import Evaluation
from cluster.evaluations.evaluation import Evaluation as AnyEvaluation
from cluster.evaluations.tables import Collected
from gencomp.errors import InputError
from slurm.jobs.job import Job
from slurm.jobs.restartable import Restartable
from slurm.kinds.evaluation_jobs import EvaluationJobs


class EncoderJobs(EvaluationJobs[Evaluation]):
    """The one job that trains encoders. It takes a step for each beta."""

    KIND: ClassVar[str] = "variational"
    STAGES: ClassVar[tuple[str, ...]] = ("baseline",)
    EVALUATION: ClassVar[type[AnyEvaluation]] = Evaluation

    def task(self, job: Job) -> Callable[[], None]:
        return TrainEncoders(job.name, str(self.path))

    def collect(self, require_all: bool) -> Collected:
        from cluster.evaluations.encoders import results

        if self.missing():
            raise InputError(
                f"{self.path} has no result yet; "
                f"`gencomp slurm status {shlex.quote(str(self.path))}` shows where "
                "the job stands"
            )
        return results.shown(self.evaluation)


class TrainEncoders(Restartable):
    """Trains the encoders for one beta after another, and saves after each."""

    def __init__(self, name: str, directory: str, save_seconds: float = 0.0) -> None:
        super().__init__(name, directory, save_seconds)

    def __call__(self) -> None:
        jobs = EncoderJobs.open(self.directory)
        total = jobs.block_steps(0)
        with jobs.working(self.name, total) as report:
            if jobs.missing():
                from cluster.evaluations.encoders.work import open_training

                self.work(open_training(jobs.evaluation), report)
            report.done = total
