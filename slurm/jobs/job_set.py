"""The directory of a set of jobs: the blocks of work that they share, and the jobs' own files.

jobs.json    the jobs that were submitted, and where
progress/    one small JSON file per job
logs/        submitit's folder
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

from cluster.evaluations.evaluation import name_blocks
from cluster.evaluations.tables import Collected
from slurm.jobs import options
from slurm.jobs.job import COLLECT, PILOT, Job
from slurm.jobs.progress_file import progress_path


class JobSet(ABC):
    """The contract of an evaluation, a run or a sweep with submission, status and cancelling.

    Attributes:
        STAGES: the stages of jobs that share blocks, in the order in which they are submitted.
        COLLECTS: whether a separate job merges the parts that the other jobs leave.
        SAVES_LONG: whether a job that is cancelled may take longer to save than Slurm waits.
    """

    STAGES: ClassVar[tuple[str, ...]]
    COLLECTS: ClassVar[bool] = False
    SAVES_LONG: ClassVar[bool] = False

    @property
    @abstractmethod
    def kind(self) -> str:
        """The kind of work, in the names of Slurm's jobs."""

    @property
    @abstractmethod
    def path(self) -> Path:
        """The directory."""

    @property
    @abstractmethod
    def hash(self) -> str:
        """The hash of what the jobs work on."""

    @property
    @abstractmethod
    def cpus(self) -> int:
        """The number of CPUs of a job, on each of its nodes."""

    @property
    @abstractmethod
    def gpu(self) -> bool:
        """Whether a job needs a GPU."""

    @property
    @abstractmethod
    def block_sizes(self) -> list[int]:
        """The number of images of each block, or 1 if there is only one block."""

    @abstractmethod
    def missing(self) -> list[int]:
        """The numbers of the blocks without a part."""

    @abstractmethod
    def block_steps(self, block: int) -> int:
        """The number of steps that a job reports for a block."""

    @abstractmethod
    def task(self, job: Job) -> Callable[[], None]:
        """The callable of a job, which holds names and numbers only."""

    @abstractmethod
    def collect(self, require_all: bool) -> Collected:
        """Merge the parts that exist into the result.

        Raises:
            InputError: no part exists yet, or (`require_all`) blocks are missing.
        """

    @property
    def subject(self) -> Path:
        """The path that the user gives: the directory, or the run or sweep that it belongs to."""
        return self.path

    @property
    def nodes(self) -> int:
        """The number of nodes of a job."""
        return 1

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of a job, such as a thread for each CPU."""
        return options.environment(self.cpus)

    @property
    def ready(self) -> bool:
        """Whether blocks can be worked on. If not, a pilot job must come first."""
        return True

    @property
    def pilot_steps(self) -> int:
        """The number of steps that the pilot reports."""
        return 0

    @property
    def collected(self) -> bool:
        """Whether the result was merged from all parts that exist."""
        return True

    @property
    def stages(self) -> tuple[str, ...]:
        """All stages, in the order in which jobs follow each other."""
        return (PILOT, *self.STAGES, COLLECT)

    def stage(self, block: int) -> str:
        """The stage of the jobs that work on a block."""
        return self.STAGES[0]

    @property
    def label(self) -> str:
        """The label in the names of Slurm's jobs: RUN-NAME for RUN/evaluations/NAME."""
        folder = self.path.parent
        prefix = f"{folder.parent.name}-" if folder.name == "evaluations" else ""
        return f"{prefix}{self.path.name}"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def progress(self, job: str) -> Path:
        return progress_path(self.path, job)

    def steps(self, job: Job) -> int:
        """The number of steps that a job reports."""
        if job.stage == PILOT:
            return self.pilot_steps
        return 1 if job.stage == COLLECT else sum(map(self.block_steps, job.blocks))

    def has_result(self, job: Job, missing: Collection[int]) -> bool:
        """Whether everything that a job should produce exists.

        Args:
            job: the job.
            missing: the numbers of the blocks without a part, looked up once for all jobs.
        """
        if job.stage == PILOT:
            return self.ready
        if job.stage == COLLECT:
            return self.collected
        return not any(block in missing for block in job.blocks)

    def state(self) -> str:
        """The progress of the work, in words."""
        total = len(self.block_sizes)
        return f"{total - len(self.missing())} of {total} blocks are finished"

    def name_blocks(self, blocks: Sequence[int]) -> str:
        """Some blocks and the number of their images, in words."""
        return name_blocks(self.block_sizes, blocks)

    def describe(self, job: Job) -> str:
        """The callable that a job would run, in words."""
        what: Any = self.task(job)
        held = ", ".join(f"{k}={v!r}" for k, v in vars(what).items() if not k.startswith("_"))
        return f"{type(what).__name__}({held})"
