"""What the job sets of all kinds of evaluations share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from cluster.evaluations.evaluation import Evaluation
from slurm.jobs.job_set import JobSet
from slurm.jobs.progress_file import ProgressFile, reporting

Kind = TypeVar("Kind", bound=Evaluation)


@dataclass(frozen=True)
class EvaluationJobs(JobSet, Generic[Kind]):
    """An evaluation whose blocks are shared by jobs.

    Attributes:
        KIND: the kind, in the names of Slurm's jobs.
        EVALUATION: the class of the evaluation.
        evaluation: the evaluation whose blocks are shared.
    """

    KIND: ClassVar[str]
    EVALUATION: ClassVar[type[Evaluation]]
    STAGES: ClassVar[tuple[str, ...]] = ("measure",)

    evaluation: Kind

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The jobs of an evaluation that exists.

        Raises:
            InputError: the directory holds no such evaluation, or its plan cannot be read.
        """
        return cls(cls.EVALUATION.open(path))  # type: ignore[arg-type]

    def enter(self) -> Self:
        """Make the directory with its plan and submitit's folder, unless they exist."""
        # submitit's folder must exist before a job can start, since Slurm opens the logs itself.
        self.logs.mkdir(parents=True, exist_ok=True)
        self.evaluation.enter()
        return self

    @property
    def kind(self) -> str:
        return self.KIND

    @property
    def path(self) -> Path:
        return self.evaluation.path

    @property
    def hash(self) -> str:
        return self.evaluation.plan.hash

    @property
    def _settings(self) -> Any:
        return self.evaluation.plan.settings

    @property
    def cpus(self) -> int:
        return int(self._settings.threads)

    @property
    def gpu(self) -> bool:
        return bool(self._settings.device == "cuda")

    @property
    def block_sizes(self) -> list[int]:
        return self.evaluation.block_sizes

    def missing(self) -> list[int]:
        return self.evaluation.missing()

    def block_steps(self, block: int) -> int:
        return self.evaluation.block_steps(block)

    @contextmanager
    def working(self, job: str, total: int) -> Iterator[ProgressFile]:
        """Report the job's progress, as `reporting` does, with as many threads as it has CPUs."""
        import torch

        torch.set_num_threads(self.cpus)
        with reporting(self.progress(job), job, total) as report:
            yield report
