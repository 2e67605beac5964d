"""`gencomp slurm status`, which shows where each job stands."""

from __future__ import annotations

from pathlib import Path

from gencomp.cli.arguments import Json
from gencomp.cli.console import print_json, print_table, short_duration


def status(directory: Path, /, as_json: Json = False) -> None:
    """Show where each job stands.

    Args:
        directory: A run or a sweep that was submitted, or an evaluation, RUN/evaluations/NAME.
    """
    from slurm.jobs import status as standing
    from slurm.kinds import open_jobs

    jobs = open_jobs(directory)
    rows = standing.rows(jobs)
    if as_json:
        print_json({"subject": jobs.subject, "state": jobs.state(), "jobs": rows})
        return
    sampled = any(row.ess is not None for row in rows)
    header = ["job", "id", "state", "attempt", "progress", *["ESS"] * sampled]
    header += ["elapsed", "left", "log"]
    lines = [
        [
            row.name,
            row.id,
            row.state,
            str(row.attempt or ""),
            f"{row.done}/{row.total}",
            *["" if row.ess is None else f"{row.ess:.1f}"] * sampled,
            short_duration(row.elapsed),
            short_duration(row.left),
            _relative(row.log),
        ]
        for row in rows
    ]
    print_table("", header, lines)
    print(f"{jobs.subject}: {jobs.state()}")


def _relative(path: Path | None) -> str:
    if path is None:
        return ""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
