"""Submitting the missing work of an evaluation, a run or a sweep, and waiting for it."""

from __future__ import annotations

import io
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import Any, NamedTuple

from cluster.files import lock_holder
from gencomp.errors import InputError
from shards.pool import environment
from slurm.jobs import container, ledger, options, queue, sbatch
from slurm.jobs.job import COLLECT, PILOT, Executor, Job
from slurm.jobs.job_set import JobSet

_POLL_SECONDS = 0.2
_QUEUE_SECONDS = 2.0
# The time for a submitter to end, which is longer than it takes to stop its own jobs.
_SUBMITTER_SECONDS = 30.0
# The time limit that submitit's local executor insists on.
_LOCAL_MINUTES = 60 * 24 * 30


class Division(NamedTuple):
    """The jobs to be submitted, in the order of the stages, and the jobs that are alive already."""

    jobs: list[Job]
    living: list[Job]

    def of(self, stage: str) -> list[Job]:
        return [job for job in self.jobs if job.stage == stage]

    @property
    def measures(self) -> list[Job]:
        """The new jobs that share blocks."""
        return [job for job in self.jobs if job.blocks]


def choose(wish: str) -> Executor:
    """The executor that a wish means; `auto` is Slurm if a controller answers, else this machine.

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


def require_possible(evaluation: JobSet, jobs: int, executor: Executor) -> None:
    """Check what can be checked before anything is written or submitted.

    Args:
        evaluation, jobs, executor: those of `divide`.

    Raises:
        InputError: there are no jobs, or they could not write their logs.
    """
    if jobs < 1:
        raise InputError(f"--jobs {jobs} must be at least 1")
    sbatch.require_plain_name(evaluation.logs, executor)


def divide(evaluation: JobSet, jobs: int, executor: Executor) -> Division:
    """Give the blocks that are neither finished nor being worked on to new jobs.

    Args:
        evaluation: the evaluation with its blocks.
        jobs: the most new jobs of each stage that has blocks; on Slurm, at most an array of them.
        executor: the executor of the new jobs.
    """
    require_possible(evaluation, jobs, executor)
    if executor == "slurm":
        jobs = min(jobs, queue.longest_array())
    known = ledger.read(evaluation)
    living = ledger.living(known)
    in_work = {block for job in living for block in job.blocks}
    missing = set(evaluation.missing())
    chosen: list[tuple[str, tuple[int, ...]]] = []
    for stage in evaluation.stages:
        blocks = [b for b in sorted(missing - in_work) if evaluation.stage(b) == stage]
        # Neighbouring blocks take similar times, so they go to different jobs.
        chosen += [(stage, tuple(blocks[i::jobs])) for i in range(min(jobs, len(blocks)))]
    if chosen and not evaluation.ready and not any(job.stage == PILOT for job in living):
        chosen.insert(0, (PILOT, ()))
    if evaluation.COLLECTS and (chosen or not (missing or living or evaluation.collected)):
        chosen.append((COLLECT, ()))
    new = [
        Job(
            name=f"{stage}-{number}",
            stage=stage,
            blocks=blocks,
            executor=executor,
            id=None,
            host=platform.node(),
        )
        for number, (stage, blocks) in enumerate(chosen, start=len(known))
    ]
    return Division(new, living)


def dry_run(
    evaluation: JobSet,
    work: Division,
    asked: options.SlurmOptions,
    parallel: int | None = None,
) -> str:
    """The batch scripts, and what each job would run. The arguments are those of `to_slurm`."""
    texts = []
    before = list(work.living)
    for stage in evaluation.stages:
        if jobs := work.of(stage):
            dependency = _dependency(evaluation, stage, before)
            values = _parameters(evaluation, asked, parallel, dependency)
            inside = _inside(evaluation, asked)
            texts.append(sbatch.script(evaluation.logs, values, len(jobs), inside))
            texts.append("".join(f"# {evaluation.describe(job)}\n" for job in jobs))
            before += [job.model_copy(update={"id": f"{stage.upper()}-ID"}) for job in jobs]
    return "\n".join(texts) if texts else "# nothing is missing\n"


def to_slurm(
    evaluation: JobSet,
    work: Division,
    asked: options.SlurmOptions,
    parallel: int | None = None,
) -> list[Job]:
    """Submit each stage as an array that waits for the stages that it needs.

    Args:
        evaluation: the evaluation whose jobs are submitted.
        work: the jobs that are to be submitted.
        asked: the user's requests to Slurm.
        parallel: the most jobs of an array that run at the same time.

    Raises:
        InputError: sbatch refused jobs; those that were submitted before them are cancelled.
    """
    from submitit.core.utils import FailedJobError
    from submitit.slurm.slurm import SlurmExecutor

    python = sbatch.python(_inside(evaluation, asked))
    executor = SlurmExecutor(evaluation.logs, max_num_timeout=options.MAX_TIMEOUTS, python=python)
    submitted: list[Job] = []
    said = io.StringIO()

    def submit(jobs: list[Job]) -> None:
        dependency = _dependency(evaluation, jobs[0].stage, [*work.living, *submitted])
        executor.update_parameters(**_parameters(evaluation, asked, parallel, dependency))
        # submitit repeats what sbatch says, but a refusal should be shown once.
        with redirect_stderr(said), sbatch.outside_of_jobs(), executor.batch():
            handles = [executor.submit(evaluation.task(job)) for job in jobs]
        found = [
            job.model_copy(update={"id": handle.job_id})
            for job, handle in zip(jobs, handles, strict=True)
        ]
        ledger.record(evaluation, found)
        submitted.extend(found)

    try:
        for stage in evaluation.stages:
            if jobs := work.of(stage):
                submit(jobs)
    except (FailedJobError, subprocess.CalledProcessError, OSError) as error:
        reason = [line for line in str(error).splitlines() if "error" in line.lower()]
        left = _withdraw(evaluation, submitted)
        raise InputError(f"sbatch refused: {' '.join(reason[:2]) or error}{left}") from None
    sys.stderr.write(said.getvalue())
    return submitted


def _withdraw(evaluation: JobSet, jobs: list[Job]) -> str:
    """Cancel jobs whose successors were refused; the result says which could not be cancelled."""
    ids = [job.id for job in jobs if job.id]
    try:
        if ids:
            queue.cancel(ids)
    except RuntimeError as error:
        return f"; jobs {', '.join(ids)} are still in the queue ({error})"
    ledger.forget(evaluation, jobs)
    return ""


def run_here(evaluation: JobSet, work: Division) -> None:
    """Run the jobs in this process in turn, for debuggers."""
    for job in work.jobs:
        ledger.record(evaluation, [job.model_copy(update={"id": str(os.getpid())})])
        evaluation.task(job)()


def run_locally(
    evaluation: JobSet, work: Division, parallel: int, show: Callable[[], None] = lambda: None
) -> bool:
    """Run the jobs as processes of submitit's local executor, `parallel` at a time.

    Returns:
        True if all jobs have ended; False if SIGINT or SIGTERM has stopped this command, after each
        of its processes has saved its chains and ended.
    """
    waiting = list(work.jobs)
    ledger.record(evaluation, waiting)
    # These jobs are still alive from an earlier command that was killed.
    running: dict[str, tuple[Job, Any]] = {job.name: (job, None) for job in work.living}
    with _stop_requested() as stop:
        try:
            while (waiting or running) and not stop():
                for name, (job, handle) in list(running.items()):
                    if not (ledger.process_lives(job) if handle is None else not handle.done()):
                        del running[name]
                while waiting and len(running) < parallel and not stop():
                    if not _may_start(evaluation, waiting[0], alone=not running):
                        break
                    job, handle = _start(evaluation, waiting.pop(0))
                    running[job.name] = (job, handle)
                if not running:
                    return True
                show()
                time.sleep(_POLL_SECONDS)
        finally:
            ledger.stop_processes([job for job, _ in running.values()])
            for _, handle in running.values():
                if handle is not None:
                    handle._process.wait()
        return not stop()


def wait_for_slurm(evaluation: JobSet, show: Callable[[], None] = lambda: None) -> None:
    """Wait until no job of the evaluation is in the queue or runs; held jobs are announced."""
    watcher = queue.QueueWatcher()
    silent = False
    told: set[str] = set()
    while True:
        jobs = {
            job.id: job
            for job in ledger.current(evaluation)
            if job.executor == "slurm" and job.id is not None
        }
        try:
            looks = queue.look_up(jobs)
        except RuntimeError as error:  # the controller may be restarting
            if not silent:
                print(f"waiting for the controller: {error}", file=sys.stderr)
            silent = True
        else:
            silent = False
            active = watcher.active(looks)
            held = {id_ for id_, look in looks.items() if queue.is_held(look)}
            for id_ in sorted(held - told):
                words = queue.words(looks[id_])
                print(f"{jobs[id_].name} (job {id_}) is {words}", file=sys.stderr, flush=True)
            told = held
            show()
            if not active or (evaluation.collected and not evaluation.missing()):
                return
        time.sleep(_QUEUE_SECONDS)


def cancel(evaluation: JobSet) -> list[Job]:
    """End the jobs that wait or run, and the command that submits them on this machine.

    Returns:
        The jobs that were cancelled.
    """
    before = ledger.living(ledger.read(evaluation))
    _end_submitter(evaluation)
    # Until it ended, the submitter may have submitted more jobs and stopped some.
    left = ledger.living(ledger.read(evaluation))
    if ids := [job.id for job in left if job.executor == "slurm" and job.id]:
        queue.cancel(ids, evaluation.SAVES_LONG)
    ledger.stop_processes(left)
    return list({job.name: job for job in [*before, *left]}.values())


def _end_submitter(evaluation: JobSet) -> None:
    """End the command that submits the jobs; it stops its own jobs and starts no more."""
    if (pid := lock_holder(evaluation.path)) is None:
        return
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)  # a stopped process gets the first signal only with this one
    deadline = time.monotonic() + _SUBMITTER_SECONDS
    while lock_holder(evaluation.path) == pid:
        if time.monotonic() > deadline:
            print(f"process {pid}, which submits the jobs, does not end", file=sys.stderr)
            return
        time.sleep(_POLL_SECONDS)


def _may_start(evaluation: JobSet, job: Job, alone: bool) -> bool:
    """Whether a job may start: blocks need the pilot's result, and merging waits for all others."""
    return job.stage == PILOT or (alone if job.stage == COLLECT else evaluation.ready)


def _start(evaluation: JobSet, job: Job) -> tuple[Job, Any]:
    from submitit.local.local import LocalExecutor

    executor = LocalExecutor(evaluation.logs, python=f"{shlex.quote(sys.executable)} -P")
    executor.update_parameters(timeout_min=_LOCAL_MINUTES, gpus_per_node=int(evaluation.gpu))
    with environment(evaluation.environment), _without_sigint():
        handle = executor.submit(evaluation.task(job))
    job = job.model_copy(update={"id": handle.job_id})
    ledger.record(evaluation, [job])
    return job, handle


def _parameters(
    evaluation: JobSet,
    asked: options.SlurmOptions,
    parallel: int | None,
    dependency: str | None,
) -> dict[str, Any]:
    shape = options.Shape(
        name=f"gencomp-{evaluation.kind}-{evaluation.label}",
        comment=f"gencomp:plan={evaluation.hash}",
        nodes=evaluation.nodes,
        cpus=evaluation.cpus,
        environment=evaluation.environment,
        dependency=dependency,
        parallel=parallel,
    )
    return options.parameters(asked, shape)


def require_container(evaluation: JobSet, asked: options.SlurmOptions, executor: Executor) -> None:
    """Check a container that is asked for, before anything is written or submitted.

    Raises:
        InputError: it is malformed, or the jobs cannot run in it.
    """
    _inside(evaluation, asked)
    if asked.container is not None and executor != "slurm":
        raise InputError("--container is for jobs on Slurm, but these run on this machine")


def _inside(evaluation: JobSet, asked: options.SlurmOptions) -> list[str]:
    """The words of the batch script that start the container in which the jobs run, if any."""
    subject = evaluation.subject.resolve()
    # Beside a run lie those that it has started from.
    run = subject.parents[1] if subject.parent.name == "evaluations" else subject
    found = container.of(asked, [Path.cwd(), run.parent])
    if found is not None and evaluation.nodes > 1:
        raise InputError(
            f"--container is for jobs of one node, but --nodes is {evaluation.nodes}: Ray on"
            " several nodes is not started inside images"
        )
    return found.words(evaluation.cpus, evaluation.gpu) if found else []


def _dependency(evaluation: JobSet, stage: str, before: Iterable[Job]) -> str | None:
    """The jobs that the jobs of a stage depend on, in the format of sbatch.

    Blocks need a pilot that has succeeded. Merging waits until all jobs have ended in any way.

    Args:
        evaluation: the evaluation.
        stage: the stage.
        before: the jobs that were submitted for the evaluation before.
    """
    if stage == PILOT or (stage != COLLECT and evaluation.ready):
        return None
    needed = [job for job in before if (job.blocks if stage == COLLECT else job.stage == PILOT)]
    # The dependency names an array as a whole.
    ids = dict.fromkeys(
        job.id.split("_")[0] for job in needed if job.executor == "slurm" and job.id
    )
    return f"{'afterany' if stage == 'collect' else 'afterok'}:{':'.join(ids)}" if ids else None


@contextmanager
def _stop_requested() -> Iterator[Callable[[], bool]]:
    """A function that says whether SIGINT or SIGTERM has come; the signals interrupt nothing."""
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
    """Let children ignore Ctrl-C, which a terminal sends to them too, since we stop them."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
