"""`gencomp slurm cancel`, which ends jobs that wait or run."""

from __future__ import annotations

from pathlib import Path


def cancel(directory: Path, /) -> None:
    """Cancel jobs that wait or run; runs and chains of AIS are saved, and finished blocks are kept.

    Args:
        directory: A run or a sweep that was submitted, or an evaluation, RUN/evaluations/NAME.
    """
    from slurm.jobs import submit
    from slurm.kinds import open_jobs

    jobs = open_jobs(directory)
    stopped = submit.cancel(jobs)
    if not stopped:
        print(f"{jobs.path}: no job waits or runs")
    for job in stopped:
        print(f"cancelled {job.name} ({job.executor} {job.id})")
