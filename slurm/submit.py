"""Submitting what is missing of an evaluation, and waiting for it."""

from __future__ import annotations

import io
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from itertools import pairwise
from typing import Any, NamedTuple

from cluster.files import lock_holder
from gencomp.errors import InputError
from slurm import ledger, options, queue
from slurm.directory import JobDirectory
from slurm.ledger import Executor, Job

_POLL_SECONDS = 0.2
_QUEUE_SECONDS = 2.0
# submitit's local executor wants a limit.
_LOCAL_MINUTES = 60 * 24 * 30


class Work(NamedTuple):
    """What is to be submitted: the pilot or not, groups of blocks; and what lives already."""

    pilot: Job | None
    measures: list[Job]
    living: list[Job]

    @property
    def jobs(self) -> list[Job]:
        return ([self.pilot] if self.pilot else []) + self.measures


def choose(wish: str) -> Executor:
    """The executor for `auto`: Slurm where a controller answers, else this machine.

    Raises:
        InputError: Slurm was asked for and no controller answers.
    """
    if wish == "auto":
        return "slurm" if queue.answers() else "local"
    if wish == "slurm" and not queue.answers():
        raise InputError(
            "no Slurm controller answers `scontrol ping` here; submit from a login node, or use "
            "--executor local"
        )
    return wish  # type: ignore[return-value]


def divide(evaluation: JobDirectory, jobs: int, executor: Executor) -> Work:
    """Give the blocks that neither exist nor are in work to new jobs, as evenly as they go."""
    if jobs < 1:
        raise InputError(f"--jobs {jobs} must be at least 1")
    known = ledger.read(evaluation)
    living = ledger.living(known)
    in_work = {block for job in living for block in job.blocks or ()}
    open_blocks = [block for block in evaluation.missing() if block not in in_work]
    need_pilot = (
        bool(open_blocks) and not evaluation.ready and not any(job.blocks is None for job in living)
    )
    number = len(known)

    def job(blocks: tuple[int, ...] | None) -> Job:
        nonlocal number
        name = f"{'pilot' if blocks is None else 'measure'}-{number}"
        number += 1
        return Job(name=name, blocks=blocks, executor=executor, id=None, host=platform.node())

    pilot = job(None) if need_pilot else None
    count = min(jobs, len(open_blocks))
    cuts = [len(open_blocks) * i // count for i in range(count + 1)] if count else []
    measures = [job(tuple(open_blocks[a:b])) for a, b in pairwise(cuts)]
    return Work(pilot, measures, living)


def dry_run(evaluation: JobDirectory, work: Work, asked: options.SlurmOptions) -> str:
    """The batch scripts and what each job would run."""
    after = "PILOT_ID" if work.pilot else _living_pilot(evaluation, work)
    texts = []
    for jobs, dependency in (([work.pilot] if work.pilot else [], None), (work.measures, after)):
        if jobs:
            values = _parameters(evaluation, asked, dependency)
            texts.append(options.script(evaluation.logs, values, len(jobs)))
            texts.append("".join(f"# {evaluation.describe(job)}\n" for job in jobs))
    return "\n".join(texts) if texts else "# nothing is missing\n"


def to_slurm(evaluation: JobDirectory, work: Work, asked: options.SlurmOptions) -> list[Job]:
    """Submit the pilot and, behind it, an array of the measuring jobs.

    Raises:
        InputError: sbatch refused.
    """
    from submitit.core.utils import FailedJobError
    from submitit.slurm.slurm import SlurmExecutor

    executor = SlurmExecutor(
        evaluation.logs, max_num_timeout=options.MAX_TIMEOUTS, python=options.python()
    )
    submitted: list[Job] = []
    said = io.StringIO()
    after = _living_pilot(evaluation, work)

    def submit(jobs: list[Job]) -> None:
        executor.update_parameters(**_parameters(evaluation, asked, after))
        # submitit repeats what sbatch says; a refusal is to be said once.
        with redirect_stderr(said), executor.batch():
            handles = [executor.submit(evaluation.task(job)) for job in jobs]
        found = [
            job.model_copy(update={"id": handle.job_id})
            for job, handle in zip(jobs, handles, strict=True)
        ]
        ledger.record(evaluation, found)
        submitted.extend(found)

    try:
        if work.pilot:
            submit([work.pilot])
            after = submitted[0].id
        if work.measures:
            submit(work.measures)
    except (FailedJobError, subprocess.CalledProcessError, OSError) as error:
        reason = [line for line in str(error).splitlines() if "error" in line.lower()]
        raise InputError(f"sbatch refused: {' '.join(reason[:2]) or error}") from None
    sys.stderr.write(said.getvalue())
    return submitted


def run_here(evaluation: JobDirectory, work: Work) -> None:
    """Run the jobs in this process, one after another (for debuggers)."""
    for job in work.jobs:
        ledger.record(evaluation, [job.model_copy(update={"id": str(os.getpid())})])
        evaluation.task(job)()


def run_locally(
    evaluation: JobDirectory, work: Work, parallel: int, show: Callable[[], None] = lambda: None
) -> bool:
    """Run the jobs as processes of submitit's local executor, `parallel` at a time, the pilot
    first.

    Returns:
        True when all jobs have ended, False when SIGINT or SIGTERM stopped us; then every process
        of ours has saved its chains and is gone.
    """
    waiting = list(work.jobs)
    ledger.record(evaluation, waiting)
    # Of an earlier command that was killed.
    running: dict[str, tuple[Job, Any]] = {job.name: (job, None) for job in work.living}
    with _stop_requested() as stop:
        try:
            while (waiting or running) and not stop():
                for name, (job, handle) in list(running.items()):
                    if not (ledger.process_lives(job) if handle is None else not handle.done()):
                        del running[name]
                blocked = any(job.blocks is None for job, _ in running.values())
                if not blocked and not running and not _may_measure(evaluation, waiting):
                    return True
                while waiting and len(running) < parallel and not blocked and not stop():
                    job, handle = _start(evaluation, waiting.pop(0))
                    running[job.name] = (job, handle)
                    blocked = job.blocks is None
                show()
                time.sleep(_POLL_SECONDS)
        finally:
            ledger.stop_processes([job for job, _ in running.values()])
            for _, handle in running.values():
                if handle is not None:
                    handle._process.wait()
        return not stop()


def wait_for_slurm(evaluation: JobDirectory, show: Callable[[], None] = lambda: None) -> None:
    """Wait until no job of the evaluation is in the queue or runs."""
    watcher = queue.QueueWatcher()
    while True:
        ids = [job.id for job in ledger.current(evaluation) if job.executor == "slurm" and job.id]
        active = watcher.active(queue.look_up(ids))
        show()
        if not active or not evaluation.missing():
            return
        time.sleep(_QUEUE_SECONDS)


def cancel(evaluation: JobDirectory) -> list[Job]:
    """End the jobs that wait or run, and the command that submits them on this machine.

    Returns:
        The jobs that were cancelled.
    """
    stopped = ledger.living(ledger.read(evaluation))
    # The submitter stops its own jobs, and starts no more.
    if (pid := lock_holder(evaluation.path)) is not None:
        os.kill(pid, signal.SIGTERM)
        while lock_holder(evaluation.path) == pid:
            time.sleep(_POLL_SECONDS)
    if ids := [job.id for job in stopped if job.executor == "slurm" and job.id]:
        queue.cancel(ids)
    ledger.stop_processes(stopped)
    return stopped


def _may_measure(evaluation: JobDirectory, waiting: list[Job]) -> bool:
    """Whether something can start: measuring needs the pilot's result, or a pilot to come."""
    return bool(waiting) and (waiting[0].blocks is None or evaluation.ready)


def _start(evaluation: JobDirectory, job: Job) -> tuple[Job, Any]:
    from submitit.local.local import LocalExecutor

    executor = LocalExecutor(evaluation.logs)
    executor.update_parameters(timeout_min=_LOCAL_MINUTES, gpus_per_node=int(evaluation.gpu))
    with _environment(options.environment(evaluation.threads)), _without_sigint():
        handle = executor.submit(evaluation.task(job))
    job = job.model_copy(update={"id": handle.job_id})
    ledger.record(evaluation, [job])
    return job, handle


def _parameters(
    evaluation: JobDirectory, asked: options.SlurmOptions, after: str | None
) -> dict[str, Any]:
    name = f"{evaluation.path.parent.parent.name}-{evaluation.path.name}"
    return options.parameters(
        asked,
        threads=evaluation.threads,
        job_name=f"gencomp-{evaluation.KIND}-{name}",
        comment=f"gencomp:plan={evaluation.hash}",
        after=after,
    )


def _living_pilot(evaluation: JobDirectory, work: Work) -> str | None:
    if evaluation.ready:
        return None
    return next((j.id for j in work.living if j.blocks is None and j.executor == "slurm"), None)


@contextmanager
def _stop_requested() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM has come; a flag, so that nothing is interrupted half-way."""
    seen: list[int] = []
    previous = {
        number: signal.signal(number, lambda signum, frame: seen.append(signum))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _without_sigint() -> Iterator[None]:
    """Children started inside ignore Ctrl-C, which a terminal sends to them too: we stop them."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    previous = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
