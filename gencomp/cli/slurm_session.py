"""What `gencomp slurm train` and `gencomp slurm sweep` share: nodes, submission, waiting."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from cluster.files import locked
from gencomp.cli.slurm_jobs import Requests, waited
from gencomp.errors import InputError
from slurm import ledger, queue, session, status, submit
from slurm.session import Order, Session

_INTERRUPTED = 130
_BUSY = "{directory} is being submitted by {holder}; wait a moment"
_PLURAL = {"train": "workers", "sweep": "workers of one trial"}


@dataclass(frozen=True)
class Allocation(Requests):
    """The job's allocation.

    Attributes:
        nodes: Nodes; on several, a Ray cluster is brought up on them; 1 by default.
        cpus_per_task: CPUs of each node, of which every worker takes one; by default as many as the
            workers need.
    """

    nodes: int | None = None

    def completed(self) -> Self:
        whole = super().completed()
        if whole.nodes is not None and whole.nodes < 1:
            raise InputError(f"--nodes {whole.nodes} must be at least 1")
        return whole

    def order(
        self, kind: Literal["train", "sweep"], words: Sequence[str], workers: int, gpu: bool
    ) -> Order:
        """What the job is to run.

        Args:
            kind: of session.
            words: of the driver.
            workers: that there must be room for.
            gpu: whether each wants a GPU.

        Raises:
            InputError: they do not fit.
        """
        nodes = self.nodes or 1
        cpus = self.cpus_per_task or -(-workers // nodes)
        if nodes * cpus < workers:
            raise InputError(
                f"{workers} {_PLURAL[kind]} need {workers} CPUs, but --nodes {nodes} of"
                f" --cpus-per-task {cpus} have {nodes * cpus}"
            )
        return Order(
            kind=kind, words=tuple(words), nodes=nodes, cpus=cpus, gpu=gpu, warning=self.warning
        )

    def show(self, found: Session) -> int:
        """Print what would be submitted."""
        print(submit.dry_run(found, submit.divide(found, 1, "slurm"), self), end="")
        return 0

    def submit(self, found: Session) -> int:
        """Submit a job, unless one waits or runs; with `wait`, stay until it is over.

        Returns:
            The exit code.
        """
        found.path.mkdir(parents=True, exist_ok=True)
        with locked(found.path, _BUSY):
            if not announce_living(found.subject):
                session.enter(found)
                for job in submit.to_slurm(found, submit.divide(found, 1, "slurm"), self):
                    print(f"{found.subject}: submitted {job.name} as job {job.id}", flush=True)
        if not self.wait:
            print(f"gencomp slurm status {found.subject} shows where it stands")
            return 0
        return _conclude(found) if waited(found) else _INTERRUPTED


ALLOCATION = Allocation()


def require_slurm(command: str) -> None:
    """
    Raises:
        InputError: no controller answers.
    """
    if not queue.answers():
        raise InputError(
            "no Slurm controller answers `scontrol ping` here; submit from a login node, or use"
            f" `{command}` on this machine"
        )


def announce_living(subject: Path) -> bool:
    """Whether a job of a run or a sweep waits or runs; the user is told."""
    found = session.find(subject)
    if found is None:
        return False
    jobs = ledger.living(ledger.read(found))
    states = {row.name: row.state for row in status.rows(found)}
    for job in jobs:
        state = states.get(job.name, "in the queue")
        print(f"{found.subject}: {job.name} is there already, as job {job.id}: {state}", flush=True)
    return bool(jobs)


def _conclude(found: Session) -> int:
    row = status.rows(found)[-1]
    if row.state == "done":
        print(f"{found.subject} is finished: {found.state()}")
        return 0
    print(f"{row.name}: {row.state}; log {row.log}", file=sys.stderr)
    return 1
