"""The status of each job of an evaluation, a run or a sweep."""

from __future__ import annotations

import platform
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cluster.files import lock_holder
from slurm.jobs import ledger, progress_file, queue
from slurm.jobs.job import PILOT, Job
from slurm.jobs.job_set import JobSet


class Row(NamedTuple):
    """The status of one job. The meaning of its steps depends on the kind of evaluation."""

    name: str
    id: str
    state: str
    attempt: int
    done: int
    total: int
    ess: float | None
    elapsed: float | None  # seconds of the current or last attempt
    left: float | None  # seconds, if the job runs and its rate is known
    log: Path | None


class Summary(NamedTuple):
    """The status of an evaluation as a whole."""

    phase: str
    fraction: float
    ess: float | None
    running: int
    left: float | None  # seconds until the last running job ends


def rows(evaluation: JobSet) -> list[Row]:
    """One row per job that still matters, oldest first.

    If Slurm's controller does not answer, the states are unknown, but the progress is still known.
    """
    jobs = ledger.current(evaluation)
    ids = [job.id for job in jobs if job.executor == "slurm" and job.id]
    try:
        looks = queue.look_up(ids)
    except RuntimeError as error:
        looks = {job: queue.Look("UNREACHABLE", str(error)) for job in ids}
    submitting = lock_holder(evaluation.path) is not None
    missing = set(evaluation.missing())
    return [_row(evaluation, job, looks, missing, submitting) for job in jobs]


def summary(evaluation: JobSet) -> Summary:
    """The progress of an evaluation, read from the jobs' own files without asking a scheduler."""
    jobs = ledger.current(evaluation)
    if evaluation.ready:
        phase, here = evaluation.stage(0), [job for job in jobs if job.blocks]
        total = sum(map(evaluation.block_steps, range(len(evaluation.block_sizes))))
    else:
        phase, here = PILOT, [job for job in jobs if job.stage == PILOT]
        total = evaluation.pilot_steps
    progress = [progress_file.read(evaluation.progress(job.name)) for job in here]
    # Blocks that belong to no current job are finished.
    elsewhere = max(total - sum(map(evaluation.steps, here)), 0)
    done = sum(p.get("done", 0) for p in progress) + elsewhere
    working = [p for p in progress if p and not p.get("ended")]
    ess = [p["ess"] for p in progress if "ess" in p]
    left = [left for p in working if (left := _left(p)) is not None]
    return Summary(
        phase,
        min(done / total, 1.0) if total else 0.0,
        sum(ess) / len(ess) if ess else None,
        len(working),
        max(left) if left else None,
    )


def _row(
    evaluation: JobSet,
    job: Job,
    looks: Mapping[str, queue.Look],
    missing: Collection[int],
    submitting: bool,
) -> Row:
    progress = progress_file.read(evaluation.progress(job.name))
    state = _state(evaluation, job, looks, progress, missing, submitting)
    running = state.startswith("running")
    elapsed = None
    if progress:
        elapsed = (time.time() if running else progress["updated"]) - progress["started"]
    finished = state == "done"
    total = evaluation.steps(job)
    return Row(
        name=job.name,
        id=job.id or "",
        state=state,
        attempt=progress.get("attempt", 0),
        done=total if finished else progress.get("done", 0),
        total=total,
        ess=progress.get("ess"),
        elapsed=elapsed,
        left=_left(progress) if running else None,
        log=job.log(evaluation.logs) if job.id and job.executor != "debug" else None,
    )


def _state(
    evaluation: JobSet,
    job: Job,
    looks: Mapping[str, queue.Look],
    progress: Mapping[str, Any],
    missing: Collection[int],
    submitting: bool,
) -> str:
    if evaluation.has_result(job, missing):
        return "done"
    if job.id is None:
        return "waiting (for its turn)" if submitting else "not submitted"
    ended = progress.get("ended")
    if job.executor == "slurm":
        look = looks[job.id]
        if look.state == "UNREACHABLE":
            return f"unknown: {look.reason}"
        words = queue.words(look)
        if ended == "stopped" and words == "failed (FAILED)":
            return "stopped"
        return f"{words}: {ended}" if ended and words.startswith(("failed", "ended")) else words
    if job.host != platform.node():
        return f"unknown: it was started on {job.host}"
    if ledger.process_lives(job):
        return "running"
    if ended in (None, "done"):
        return "ended without result"
    return str(ended)


def _left(progress: Mapping[str, Any]) -> float | None:
    pace = progress.get("seconds_per_step")
    return None if pace is None else float(pace * (progress["total"] - progress["done"]))
