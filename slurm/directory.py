"""An evaluation directory as jobs see it: blocks of images that they share, and their own files.

jobs.json    which jobs were submitted where
progress/    one small JSON file per job
logs/        submitit's folder
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from slurm.ledger import Job


class JobDirectory(ABC):
    """What submission, status and cancelling ask of an evaluation.

    Attributes:
        KIND: in the names of Slurm's jobs.
        path: the directory.
    """

    KIND: ClassVar[str]
    path: Path

    @property
    @abstractmethod
    def hash(self) -> str:
        """Of what is evaluated."""

    @property
    @abstractmethod
    def threads(self) -> int:
        """Of a job."""

    @property
    @abstractmethod
    def gpu(self) -> bool:
        """Whether a job needs one."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether blocks can be measured, or a pilot job must come first."""

    @property
    @abstractmethod
    def block_sizes(self) -> list[int]:
        """Images of each block."""

    @abstractmethod
    def missing(self) -> list[int]:
        """Blocks without a part."""

    @abstractmethod
    def steps(self, blocks: Sequence[int] | None) -> int:
        """Steps that a job reports for these blocks; None stands for the pilot."""

    @abstractmethod
    def task(self, job: Job) -> Callable[[], None]:
        """The callable of a job: names and numbers only."""

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def progress(self, job: str) -> Path:
        return self.path / "progress" / f"{job}.json"

    def has_result(self, job: Job) -> bool:
        """Whether everything that a job was for is there."""
        return self.ready if job.blocks is None else not set(job.blocks) & set(self.missing())

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
