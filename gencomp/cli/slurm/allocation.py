"""What `gencomp slurm train` and `gencomp slurm sweep` share: the allocation and its submission."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import tyro
from pydantic import Field

from cluster.files import locked
from gencomp.cli.slurm.submission import Requests, waited
from gencomp.errors import InputError
from gencomp.exit_codes import DONE, FAILED, STOPPED
from slurm.jobs import ledger, queue, status, submit
from slurm.sessions.session import Order
from slurm.sessions.session_jobs import SessionJobs

_BUSY = "{directory} is being submitted by {holder}; wait a moment"
_PLURAL = {"train": "workers", "sweep": "workers of one trial"}


class Allocation(Requests):
    """The job's allocation."""

    cpus_per_task: int | None = Field(
        None,
        description="CPUs of each node, of which every worker takes one; by default as many as are"
        " needed by all the workers that may run at once.",
    )
    nodes: int | None = Field(
        None,
        description="Nodes of the job; on several nodes, a Ray cluster is started; 1 by default.",
    )

    def completed(self) -> Self:
        whole = super().completed()
        if whole.nodes is not None and whole.nodes < 1:
            raise InputError(f"--nodes {whole.nodes} must be at least 1")
        return whole

    def order(
        self,
        kind: Literal["train", "sweep"],
        words: Sequence[str],
        fewest: int,
        most: int,
        gpu: bool,
    ) -> Order:
        """The order that says what the job runs.

        Args:
            kind: The kind of the session.
            words: The words of the driver's command line.
            fewest: The number of workers for which there must be room.
            most: The number of workers for which room is asked by default.
            gpu: Whether each worker needs a GPU.

        Raises:
            InputError: The workers do not fit into the allocation.
        """
        nodes = self.nodes or 1
        cpus = self.cpus_per_task or -(-most // nodes)
        if nodes * cpus < fewest:
            raise InputError(
                f"{fewest} {_PLURAL[kind]} need {fewest} CPUs, but --nodes {nodes} of"
                f" --cpus-per-task {cpus} have {nodes * cpus}"
            )
        return Order(
            kind=kind, words=tuple(words), nodes=nodes, cpus=cpus, gpu=gpu, warning=self.warning
        )

    def show(self, found: SessionJobs) -> int:
        """Print what would be submitted."""
        print(submit.dry_run(found, submit.divide(found, 1, "slurm"), self), end="")
        return DONE

    def submit(self, found: SessionJobs, prepare: Callable[[], None] = lambda: None) -> int:
        """Submit a job, unless one waits or runs; with `wait`, return only when the job is over.

        Args:
            found: The session that the job drives.
            prepare: A function that is called while the session's lock is held, if no job of the
                session waits or runs.

        Returns:
            The exit code.
        """
        submit.require_possible(found, 1, "slurm")
        submit.require_container(found, self, "slurm")
        found.path.mkdir(parents=True, exist_ok=True)
        with locked(found.path, _BUSY):
            if not _announce_living(found.subject):
                prepare()
                found.enter()
                for job in submit.to_slurm(found, submit.divide(found, 1, "slurm"), self):
                    print(f"{found.subject}: submitted {job.name} as job {job.id}", flush=True)
        if not self.wait:
            print(f"gencomp slurm status {shlex.quote(str(found.subject))} shows where it stands")
            return DONE
        return _conclude(found) if waited(found) else STOPPED


# An option of several values is given once for each of them.
AllocationOptions = Annotated[Allocation, tyro.conf.OmitArgPrefixes, tyro.conf.UseAppendAction]


def require_slurm(command: str) -> None:
    """Check that there is a Slurm controller.

    Raises:
        InputError: No controller answers.
    """
    if not queue.answers():
        raise InputError(
            "no Slurm controller answers `scontrol ping` here; submit from a login node, or use"
            f" `{command}` on this machine"
        )


def _announce_living(subject: Path) -> bool:
    """Whether a job of a run or a sweep waits or runs; if so, print its state."""
    found = SessionJobs.find(subject)
    if found is None:
        return False
    # Slurm may be about to requeue the newest one.
    queue.settled([job.id for job in ledger.current(found) if job.executor == "slurm" and job.id])
    jobs = ledger.living(ledger.read(found))
    states = {row.name: row.state for row in status.rows(found)}
    for job in jobs:
        state = states.get(job.name, "in the queue")
        print(f"{found.subject}: {job.name} is there already, as job {job.id}: {state}", flush=True)
    return bool(jobs)


def _conclude(found: SessionJobs) -> int:
    row = status.rows(found)[-1]
    if row.state == "done":
        print(f"{found.subject} is finished: {found.state()}")
        return DONE
    print(f"{row.name}: {row.state}; log {row.log}", file=sys.stderr)
    return FAILED
