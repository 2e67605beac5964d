"""Metrics of a run as jobs: each job makes the parts of some blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from cluster.evaluations.evaluation import Evaluation as AnyEvaluation
from cluster.evaluations.metrics.plan import Evaluation
from cluster.evaluations.tables import Collected
from cluster.evaluations.work import MakePart
from slurm.jobs.job import Job
from slurm.kinds.evaluation_jobs import EvaluationJobs
from slurm.kinds.whole_blocks import WholeBlocks


class MetricJobs(EvaluationJobs[Evaluation]):
    """The jobs of a measurement. A job takes a step for each image."""

    KIND: ClassVar[str] = "metrics"
    EVALUATION: ClassVar[type[AnyEvaluation]] = Evaluation

    def task(self, job: Job) -> Callable[[], None]:
        return MeasureMetrics(job.name, str(self.path), job.blocks)

    def collect(self, require_all: bool) -> Collected:
        from cluster.evaluations.metrics import results

        return results.shown(self.evaluation, results.collect(self.evaluation, require_all))


class MeasureMetrics(WholeBlocks):
    """Measures the images or samples of some blocks."""

    JOBS = MetricJobs

    def open_maker(self, directory: Path) -> MakePart:
        from cluster.evaluations.metrics.work import open_maker

        return open_maker(directory)
