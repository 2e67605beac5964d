"""A directory as jobs see it: blocks of work that they share, and their own files.

jobs.json    which jobs were submitted where
progress/    one small JSON file per job
logs/        submitit's folder
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from slurm import options

if TYPE_CHECKING:
    from slurm.ledger import Job

# What a job is for, in the order that jobs follow each other.
Stage = Literal["pilot", "measure", "bdmc", "baseline", "train", "sweep", "collect"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class JobDirectory(ABC):
    """What submission, status and cancelling ask of an evaluation, a run or a sweep.

    Attributes:
        KIND: in the names of Slurm's jobs.
        COLLECTS: whether a job of its own merges what the others leave.
        TAKES_LEAVE: whether a job that is cancelled may take longer to save than Slurm waits.
        path: the directory.
    """

    KIND: ClassVar[str]
    COLLECTS: ClassVar[bool] = False
    TAKES_LEAVE: ClassVar[bool] = False
    path: Path

    @property
    @abstractmethod
    def hash(self) -> str:
        """Of what the jobs work on."""

    @property
    @abstractmethod
    def cpus(self) -> int:
        """Of a job, on each of its nodes."""

    @property
    @abstractmethod
    def gpu(self) -> bool:
        """Whether a job needs one."""

    @property
    @abstractmethod
    def block_sizes(self) -> list[int]:
        """Images of each block, or 1 where there is but one."""

    @abstractmethod
    def missing(self) -> list[int]:
        """Blocks without a part."""

    @abstractmethod
    def block_steps(self, block: int) -> int:
        """Steps that a job reports for a block."""

    @abstractmethod
    def task(self, job: Job) -> Callable[[], None]:
        """The callable of a job: names and numbers only."""

    @property
    def nodes(self) -> int:
        """Of a job."""
        return 1

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a job: a thread for each CPU."""
        return options.environment(self.cpus)

    @property
    def ready(self) -> bool:
        """Whether blocks can be worked on, or a pilot job must come first."""
        return True

    @property
    def pilot_steps(self) -> int:
        """Steps that the pilot reports."""
        return 0

    @property
    def collected(self) -> bool:
        """Whether what was merged is all that is there."""
        return True

    def stage(self, block: int) -> Stage:
        """Of the jobs that work on a block."""
        return "measure"

    @property
    def label(self) -> str:
        """In the names of Slurm's jobs: RUN-NAME of RUN/evaluations/NAME."""
        folder = self.path.parent
        prefix = f"{folder.parent.name}-" if folder.name == "evaluations" else ""
        return f"{prefix}{self.path.name}"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def progress(self, job: str) -> Path:
        return self.path / "progress" / f"{job}.json"

    def steps(self, job: Job) -> int:
        """Steps that a job reports."""
        if job.stage == "pilot":
            return self.pilot_steps
        return 1 if job.stage == "collect" else sum(map(self.block_steps, job.blocks))

    def has_result(self, job: Job) -> bool:
        """Whether everything that a job was for is there."""
        if job.stage == "pilot":
            return self.ready
        if job.stage == "collect":
            return self.collected
        return not set(job.blocks) & set(self.missing())

    def state(self) -> str:
        """How far it is, in words."""
        total = len(self.block_sizes)
        return f"{total - len(self.missing())} of {total} blocks are finished"

    def name_blocks(self, blocks: Sequence[int]) -> str:
        """Blocks in words."""
        sizes = self.block_sizes
        named = ", ".join(map(str, blocks[:20])) + (" and more" if len(blocks) > 20 else "")
        return (
            f"{len(blocks)} of {len(sizes)} blocks ({sum(sizes[b] for b in blocks)} images): "
            f"block{'s' * (len(blocks) > 1)} {named}"
        )

    def describe(self, job: Job) -> str:
        """What a job would run."""
        what: Any = self.task(job)
        held = ", ".join(f"{k}={v!r}" for k, v in vars(what).items() if not k.startswith("_"))
        return f"{type(what).__name__}({held})"
