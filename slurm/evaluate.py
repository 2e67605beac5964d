"""Measuring a run as jobs: the blocks of `cluster.measurement`, some for each job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from submitit.helpers import DelayedSubmission

from cluster import plans
from cluster.measurement.plan import Measurement, Protocol, open_measurement
from cluster.runs import Run
from gencomp.errors import InputError
from slurm import baseline, session
from slurm.directory import JobDirectory
from slurm.jobs import Report, working
from slurm.ledger import Job
from slurm.plan import open_evaluation


@dataclass(frozen=True)
class MetricJobs(JobDirectory):
    """A measurement whose blocks are shared by jobs. A job's steps are images."""

    KIND: ClassVar[str] = "metrics"

    measurement: Measurement

    @property
    def path(self) -> Path:  # type: ignore[override]  # nothing sets it
        return self.measurement.path

    @property
    def hash(self) -> str:
        return self.measurement.plan.hash

    @property
    def cpus(self) -> int:
        return self.measurement.plan.settings.threads

    @property
    def gpu(self) -> bool:
        return self.measurement.plan.settings.device == "cuda"

    @property
    def block_sizes(self) -> list[int]:
        return [len(block.items) for block in self.measurement.plan.blocks]

    def missing(self) -> list[int]:
        return self.measurement.missing()

    def block_steps(self, block: int) -> int:
        return self.block_sizes[block]

    def task(self, job: Job) -> Callable[[], None]:
        return MeasureBlocks(job.name, str(self.path), job.blocks)


class MeasureBlocks:
    """Makes the parts of some blocks, one after another; finished ones are skipped.

    A block is small: a job that must stop drops the one it is at, and the next attempt makes it
    again.
    """

    def __init__(self, name: str, directory: str, blocks: Sequence[int]) -> None:
        self.name, self.directory = name, directory
        self.blocks = [int(block) for block in blocks]

    def __call__(self) -> None:
        from cluster.measurement.work import make_part, open_workplace

        jobs = MetricJobs(open_measurement(self.directory))
        sizes, done, place = jobs.block_sizes, 0, None
        with working(jobs, self.name, sum(sizes[block] for block in self.blocks)) as report:
            for block in self.blocks:
                if not jobs.measurement.part(block).exists():
                    if place is None:
                        place = open_workplace(jobs.measurement)
                        report.began(done)
                    make_part(place, block, partial(_advanced, report, done))
                done += sizes[block]
                report.done = done

    def checkpoint(self) -> DelayedSubmission:
        """Called in the signal handler: what is finished lies in the parts."""
        return DelayedSubmission(MeasureBlocks(self.name, self.directory, self.blocks))


def _advanced(report: Report, before: int, items: int) -> None:
    report(before + items)


def find(run: Run, name: str, protocol: Protocol) -> MetricJobs:
    """The measurement of that name, whether it is there already or not; writes nothing.

    Raises:
        InputError: the directory holds another protocol, or something else.
    """
    return MetricJobs(Measurement(plans.find(run, name, protocol), protocol))


def enter(run: Run, name: str, protocol: Protocol) -> MetricJobs:
    """Create the directory of a measurement, or find it again.

    Raises:
        InputError: as `find`; nothing is changed.
    """
    jobs = MetricJobs(Measurement(plans.enter(run, name, protocol), protocol))
    # submitit's folder must be there before a job can start: Slurm opens the logs itself.
    jobs.logs.mkdir(parents=True, exist_ok=True)
    return jobs


def open_directory(path: str | Path) -> JobDirectory:
    """The evaluation in a directory, or the session of a run or a sweep.

    Raises:
        InputError: there is none, or its plan cannot be read.
    """
    if (found := session.find(Path(path))) is not None:
        return found
    if (Path(path) / "identity.json").is_file() or (Path(path) / "sweep.yaml").is_file():
        raise InputError(
            f"{path} was not submitted to Slurm; `gencomp status {path}` says where it stands"
        )
    if (Path(path) / Protocol.FILE).is_file():
        return MetricJobs(open_measurement(path))
    if (Path(path) / baseline.Plan.FILE).is_file():
        return baseline.open_baseline(path)
    return open_evaluation(path)
