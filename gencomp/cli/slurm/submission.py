"""The options that all kinds of jobs share, and how evaluations are submitted and waited for."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import tyro
from pydantic import Field

from gencomp.cli.console import bar, short_duration
from gencomp.errors import InputError
from gencomp.exit_codes import DONE, FAILED, STOPPED
from slurm.jobs.options import SlurmOptions

if TYPE_CHECKING:
    from slurm.jobs.job_set import JobSet
    from slurm.jobs.submit import Division
    from slurm.kinds.evaluation_jobs import EvaluationJobs

_BUSY = (
    "{directory} is being worked on by {holder}; "
    "`gencomp slurm status {quoted}` shows how far it is"
)


class Requests(SlurmOptions):
    """The requests that every kind of job may make."""

    profile: Path | None = Field(
        None,
        description="YAML file with such options under the names that Slurm gives them; an option"
        " that is given here takes precedence.",
    )
    cpus_per_task: int | None = Field(None, description="CPUs of a job on each of its nodes.")
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = Field(
        False, description="Print the batch scripts; submit nothing and write nothing."
    )
    wait: bool = Field(
        False, description="On Slurm, wait for the jobs; Ctrl-C then leaves them running."
    )

    def completed(self) -> Self:
        """These requests together with the values of the profile.

        Raises:
            InputError: The profile cannot be read, or a number or a time is out of range.
        """
        from slurm.jobs import profile

        whole = profile.merged(self, profile.read(self.profile)) if self.profile else self
        if whole.cpus_per_task is not None and whole.cpus_per_task < 1:
            raise InputError(f"--cpus-per-task {whole.cpus_per_task} must be at least 1")
        _ = whole.minutes
        return whole


class Submission(Requests):
    """How the jobs of an evaluation run."""

    cpus_per_task: int | None = Field(
        None, description="CPUs of a job, which has as many threads; 1 by default."
    )
    jobs: int = Field(
        4,
        description="Largest number of jobs that share the measuring; as many may share the"
        " certificate. The result does not depend on this number.",
    )
    executor: Literal["auto", "slurm", "local", "debug"] = Field(
        "auto",
        description="Where the jobs run: slurm; local, on this machine; auto, on slurm if a"
        " controller answers, else local; debug, inside this process.",
    )
    max_parallel: int | None = Field(
        None,
        description="Largest number of jobs at once; by default there is no limit on Slurm, and on"
        " this machine as many run as its CPUs allow.",
    )

    @property
    def cpus(self) -> int:
        return self.cpus_per_task or 1

    def completed(self) -> Self:
        if self.max_parallel is not None and self.max_parallel < 1:
            raise InputError(f"--max-parallel {self.max_parallel} must be at least 1")
        return super().completed()

    def show(self, jobs: JobSet) -> int:
        """Print what would be submitted."""
        from slurm.jobs import submit

        work = submit.divide(jobs, self.jobs, "slurm")
        print(submit.dry_run(jobs, work, self, self.max_parallel), end="")
        return DONE

    def submit(self, jobs: EvaluationJobs[Any]) -> int:
        """Enter the evaluation and submit the missing jobs.

        On this machine, or with `wait`, also wait for them.

        Returns:
            The exit code.
        """
        from cluster.files import locked
        from slurm.jobs import queue, submit

        chosen = submit.choose(self.executor)
        submit.require_possible(jobs, self.jobs, chosen)
        submit.require_container(jobs, self, chosen)
        jobs.enter()
        with locked(jobs.path, _BUSY):
            missing = len(jobs.missing())
            work = submit.divide(jobs, self.jobs, chosen)
            if chosen == "slurm" and (most := queue.longest_array()) < min(self.jobs, missing):
                print(f"Slurm takes {most} jobs in one array here, not --jobs {self.jobs}")
            _announce(jobs, work, chosen, self.executor)
            if not (work.jobs or work.living):
                return DONE
            if chosen == "debug":
                submit.run_here(jobs, work)
            elif chosen == "local":
                cpus = len(os.sched_getaffinity(0)) // self.cpus
                with _progress(jobs) as show:
                    finished = submit.run_locally(
                        jobs, work, self.max_parallel or max(1, cpus), show
                    )
                if not finished:
                    print(
                        "stopped; the jobs have saved what they had, and the same command goes on"
                    )
                    return STOPPED
            else:
                for job in submit.to_slurm(jobs, work, self, self.max_parallel):
                    print(f"submitted {job.name} as job {job.id}")
                if not self.wait:
                    print(
                        f"gencomp slurm status {shlex.quote(str(jobs.path))} shows where they stand"
                    )
                    return DONE
                if not waited(jobs):
                    return STOPPED
        return _conclude(jobs)


# An option of several values is given once for each of them.
SubmissionOptions = Annotated[Submission, tyro.conf.OmitArgPrefixes, tyro.conf.UseAppendAction]


def waited(jobs: JobSet) -> bool:
    """Wait for the jobs on Slurm; returns False when Ctrl-C has ended the waiting."""
    from slurm.jobs import submit

    try:
        with _progress(jobs) as show:
            submit.wait_for_slurm(jobs, show)
    except KeyboardInterrupt:
        print(
            "the jobs stay in the queue;"
            f" gencomp slurm cancel {shlex.quote(str(jobs.path))} ends them"
        )
        return False
    return True


def _announce(jobs: JobSet, work: Division, chosen: str, wish: str) -> None:
    where = {
        "slurm": "on Slurm",
        "local": "on this machine",
        "debug": "inside this process",
    }[chosen]
    if wish == "auto" and chosen == "local":
        where += " (no Slurm controller answers)"
    missing, total = len(jobs.missing()), len(jobs.block_sizes)
    if missing:
        pilot = "a pilot and " if work.of("pilot") else ""
        shared = f"{pilot}{len(work.measures)} jobs {where}"
        print(f"{jobs.path}: {missing} of {total} blocks to measure, {shared}", flush=True)
    else:
        merge = f"; merging them {where}" if work.jobs else ""
        print(f"{jobs.path}: all {total} blocks are finished{merge}", flush=True)
    for job in work.living:
        print(f"{job.name} ({job.executor} {job.id}) of an earlier command still lives")


def _conclude(jobs: JobSet) -> int:
    from slurm.jobs import status as standing

    missing = jobs.missing()
    if not missing and jobs.collected:
        print(
            f"all {len(jobs.block_sizes)} blocks are finished; "
            f"gencomp slurm collect {shlex.quote(str(jobs.path))} shows the result"
        )
        return DONE
    if missing:
        print(f"missing are {jobs.name_blocks(missing)}", file=sys.stderr)
    rows = [row for row in standing.rows(jobs) if row.state != "done"]
    for row in rows:
        if row.log is not None:
            print(f"{row.name}: {row.state}; log {row.log}", file=sys.stderr)
    if behind := sum(row.log is None for row in rows):
        print(f"{behind} jobs behind them were not started", file=sys.stderr)
    return FAILED


def _progress(jobs: JobSet) -> AbstractContextManager[Callable[[], None]]:
    from slurm.jobs.status import summary

    def text() -> tuple[str, float, str]:
        now = summary(jobs)
        words = [f"{now.running} running"]
        if now.ess is not None:
            words.append(f"ESS {now.ess:.1f}")
        if now.left is not None:
            words.append(f"{short_duration(now.left)} left for the running jobs")
        return now.phase, now.fraction, ", ".join(words)

    return bar(text)
