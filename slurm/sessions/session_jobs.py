"""A run or a sweep as a job set: one block, for the one job that drives it in all its attempts."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from cluster.evaluations.tables import Collected
from gencomp.errors import InputError
from slurm.jobs.job import Job
from slurm.jobs.job_set import JobSet
from slurm.sessions import session
from slurm.sessions.drive import Drive
from slurm.sessions.session import Session


@dataclass(frozen=True)
class SessionJobs(JobSet):
    """The jobs of a session. A job's steps are the steps of the run, or the trials of the sweep."""

    STAGES: ClassVar[tuple[str, ...]] = ("train", "sweep")
    SAVES_LONG: ClassVar[bool] = True

    session: Session

    @classmethod
    def find(cls, directory: Path) -> Self | None:
        """The jobs of a run or a sweep, or of its directory `slurm`; None if none were submitted.

        Raises:
            InputError: the session's order cannot be read.
        """
        found = session.find(directory)
        return None if found is None else cls(found)

    def enter(self) -> None:
        """Write the order, for the jobs that are submitted from now on."""
        # submitit's folder must exist before a job can start, since Slurm opens the logs itself.
        self.logs.mkdir(parents=True, exist_ok=True)
        session.enter(self.session)

    @property
    def kind(self) -> str:
        return self.session.order.kind

    @property
    def path(self) -> Path:
        return self.session.path

    @property
    def subject(self) -> Path:
        return self.session.subject

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.session.order.model_dump_json().encode()).hexdigest()[:32]

    @property
    def nodes(self) -> int:
        return self.session.order.nodes

    @property
    def cpus(self) -> int:
        return self.session.order.cpus

    @property
    def environment(self) -> dict[str, str]:
        return {}  # the driver sets the variables of its workers

    @property
    def gpu(self) -> bool:
        return self.session.order.gpu

    @property
    def block_sizes(self) -> list[int]:
        return [1]

    def missing(self) -> list[int]:
        return [] if self.session.is_complete() else [0]

    def block_steps(self, block: int) -> int:
        return self.session.progress_now().total

    def stage(self, block: int) -> str:
        return self.session.order.kind

    @property
    def label(self) -> str:
        return self.subject.name

    def state(self) -> str:
        return self.session.state()

    def task(self, job: Job) -> Callable[[], None]:
        return Drive(job.name, str(self.path))

    def collect(self, require_all: bool) -> Collected:
        raise InputError(
            f"{self.subject} is no evaluation; "
            f"`gencomp status {shlex.quote(str(self.subject))}` shows its result"
        )
