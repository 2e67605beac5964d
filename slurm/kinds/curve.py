"""A rate-distortion curve as jobs: first a pilot, then measuring and certifying, then merging."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from submitit.helpers import DelayedSubmission

from cluster.evaluations.curve.plan import Evaluation, Kind
from cluster.evaluations.evaluation import Evaluation as AnyEvaluation
from cluster.evaluations.tables import Collected
from cluster.files import read_json
from slurm.jobs.job import COLLECT, PILOT, Job
from slurm.jobs.restartable import Restartable
from slurm.kinds.evaluation_jobs import EvaluationJobs

_STAGE_OF: dict[Kind, str] = {
    "measure": "measure",
    "forward": "bdmc",
    "backward": "bdmc",
    "certify": "certify",
    "repeat": "certify",
}


class CurveJobs(EvaluationJobs[Evaluation]):
    """The jobs of a curve. A job's steps are the transitions of its blocks."""

    KIND: ClassVar[str] = "ais"
    STAGES: ClassVar[tuple[str, ...]] = ("measure", "bdmc", "certify")
    COLLECTS: ClassVar[bool] = True
    EVALUATION: ClassVar[type[AnyEvaluation]] = Evaluation

    @property
    def ready(self) -> bool:
        return self.evaluation.tuning.exists()

    @property
    def collected(self) -> bool:
        curve = read_json(self.evaluation.result)
        return curve is not None and curve["missing_blocks"] == self.missing()

    @property
    def pilot_steps(self) -> int:
        return self.evaluation.pilot_steps

    def stage(self, block: int) -> str:
        return _STAGE_OF[self.evaluation.plan.blocks[block].kind]

    def task(self, job: Job) -> Callable[[], None]:
        if job.stage == PILOT:
            return Pilot(job.name, str(self.path))
        if job.stage == COLLECT:
            return Collect(job.name, str(self.path))
        return Measure(job.name, str(self.path), job.blocks)

    def collect(self, require_all: bool) -> Collected:
        from cluster.evaluations.curve import results

        return results.shown(self.evaluation, results.collect(self.evaluation, require_all))


class Pilot(Restartable):
    """Finds the schedule, the metric and the step sizes, and freezes them in `tuning.npz`."""

    def __call__(self) -> None:
        jobs = CurveJobs.open(self.directory)
        with jobs.working(self.name, jobs.pilot_steps) as report:
            if not jobs.ready:
                from cluster.evaluations.curve.pilot import open_tuner

                self.work(open_tuner(jobs.evaluation), report)
            report.done = jobs.pilot_steps


class Measure(Restartable):
    """Works on blocks in turn, and skips finished ones."""

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
        jobs = CurveJobs.open(self.directory)
        steps = [jobs.block_steps(block) for block in self.blocks]
        with jobs.working(self.name, sum(steps)) as report:
            from cluster.evaluations.curve.context import open_context
            from cluster.evaluations.curve.work import open_block

            context = None
            for number, length in zip(self.blocks, steps, strict=True):
                before = report.done
                if not jobs.evaluation.part(number).exists():
                    context = context or open_context(jobs.evaluation)
                    self.work(open_block(context, number), report, before)
                report.done = before + length


class Collect:
    """Makes the curve from the parts that exist. If it is stopped, it starts again."""

    def __init__(self, name: str, directory: str) -> None:
        self.name, self.directory = name, directory

    def __call__(self) -> None:
        jobs = CurveJobs.open(self.directory)
        with jobs.working(self.name, 1) as report:
            from cluster.evaluations.curve.results import collect

            collect(jobs.evaluation)
            report.done = 1

    def checkpoint(self) -> DelayedSubmission:
        return DelayedSubmission(Collect(self.name, self.directory))
