"""Files of a codec as jobs: each job writes and reads the files of some blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from cluster.evaluations.evaluation import Evaluation as AnyEvaluation
from cluster.evaluations.files.plan import Evaluation
from cluster.evaluations.tables import Collected
from cluster.evaluations.work import MakePart
from slurm.jobs.job import Job
from slurm.kinds.evaluation_jobs import EvaluationJobs
from slurm.kinds.whole_blocks import WholeBlocks


class FileJobs(EvaluationJobs[Evaluation]):
    """The jobs that measure files. A job takes a step for each picture."""

    KIND: ClassVar[str] = "files"
    EVALUATION: ClassVar[type[AnyEvaluation]] = Evaluation

    def task(self, job: Job) -> Callable[[], None]:
        return MeasureFiles(job.name, str(self.path), job.blocks)

    def collect(self, require_all: bool) -> Collected:
        from cluster.evaluations.files import results

        return results.shown(self.evaluation, results.collect(self.evaluation, require_all))


class MeasureFiles(WholeBlocks):
    """Writes and reads the files of some blocks."""

    JOBS = FileJobs

    def open_maker(self, directory: Path) -> MakePart:
        from cluster.evaluations.files.work import open_maker

        return open_maker(directory)
