"""`gencomp slurm`: restartable jobs, and where they stand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gencomp.cli.evaluate import MetricOptions, show
from gencomp.cli.slurm_jobs import SUBMISSION, Submission, duration
from gencomp.errors import InputError

if TYPE_CHECKING:
    from slurm.baseline import Baseline
    from slurm.directory import JobDirectory
    from slurm.evaluate import MetricJobs
    from slurm.plan import Evaluation


def evaluate(
    run: Path,
    /,
    metric: Annotated[MetricOptions, tyro.conf.OmitArgPrefixes],
    submission: Annotated[Submission, tyro.conf.OmitArgPrefixes] = SUBMISSION,
) -> int:
    """Measure a finished run on held-out images, as `gencomp evaluate` does, in jobs.

    The same command again submits only what is missing. On Slurm it returns after submission
    unless --wait; on this machine it always waits. `gencomp slurm collect` writes metrics.json.

    Args:
        run: Directory of a finished run.
        metric: What to measure.
        submission: How the jobs run.
    """
    from cluster.runs import open_run
    from slurm import evaluate as metrics

    submission = submission.completed()
    opened = open_run(run)
    protocol = metric.protocol(opened, submission.cpus)
    if submission.dry_run:
        return submission.show(metrics.find(opened, metric.name, protocol))
    return submission.submit(metrics.enter(opened, metric.name, protocol))


def status(directory: Path, /) -> None:
    """Show where each job stands.

    Args:
        directory: A run or a sweep that was submitted, or an evaluation, RUN/evaluations/NAME.
    """
    from slurm import status as standing
    from slurm.evaluate import open_directory
    from slurm.session import Session

    evaluation = open_directory(directory)
    rows = standing.rows(evaluation)
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
            duration(row.elapsed),
            duration(row.left),
            _relative(row.log),
        ]
        for row in rows
    ]
    _table(header, lines)
    shown = evaluation.subject if isinstance(evaluation, Session) else evaluation.path
    print(f"{shown}: {evaluation.state()}")


def collect(
    directory: Path, /, require_all: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
) -> None:
    """Merge what the jobs have written into curve.json or metrics.json, and show it.

    May be called while jobs still run; the result then says which blocks are missing.

    Args:
        directory: The evaluation, RUN/evaluations/NAME.
        require_all: Refuse while blocks are missing.
    """
    from slurm.baseline import Baseline
    from slurm.evaluate import MetricJobs, open_directory
    from slurm.plan import Evaluation
    from slurm.session import Session

    opened = open_directory(directory)
    if isinstance(opened, MetricJobs):
        _collect_metrics(opened, require_all)
    elif isinstance(opened, Baseline):
        _show_baseline(opened)
    elif isinstance(opened, Session):
        raise InputError(
            f"{opened.subject} is no evaluation; `gencomp status {opened.subject}` shows its result"
        )
    else:
        assert isinstance(opened, Evaluation)
        _collect_curve(opened, require_all)


def _collect_metrics(jobs: MetricJobs, require_all: bool) -> None:
    from cluster.measurement import results

    result = results.collect(jobs.measurement, require_all)
    show(result)
    _conclude_collection(jobs, jobs.measurement.result, result.content["images"], result.missing)


def _collect_curve(evaluation: Evaluation, require_all: bool) -> None:
    from slurm import collect as merging

    curve = merging.collect(evaluation, require_all)
    points = curve.means["points"]
    shown = sorted({round(i * (len(points) - 1) / 9) for i in range(10)})
    quality = [("ESS", "ess", ".1f"), ("acceptance", "acceptance", ".2f")]
    _print_points([points[i] for i in shown], quality)
    _print_gaps(curve.means["bdmc"])
    result = evaluation.path / "curve.json"
    _conclude_collection(evaluation, result, curve.means["images"], curve.missing)


def _show_baseline(baseline: Baseline) -> None:
    from slurm import files

    content = files.read_json(baseline.result)
    if content is None:
        raise InputError(
            f"{baseline.path} has no result yet; `gencomp slurm status {baseline.path}` shows "
            "where the job stands"
        )
    _print_points(content["points"], [])
    print(f"{baseline.result}: {content['images']} images, complete")


def _print_points(points: list[dict[str, Any]], quality: list[tuple[str, str, str]]) -> None:
    """Rate and distortion at each beta, and more columns of heading, name and format."""
    # Per value where that has a meaning, else per image.
    distortion = "mse" if "mse" in points[0] else "distortion"
    columns = [
        ("beta", "beta", ".4g"),
        ("rate [nats]", "rate", ".2f"),
        ("± s.e.", "rate_standard_error", ".2f"),
        ("bpp", "bpp", ".5f"),
        (distortion, distortion, ".5g"),
        ("± s.e.", f"{distortion}_standard_error", ".2g"),
        *quality,
    ]
    lines = [[f"{point[name]:{form}}" for _, name, form in columns] for point in points]
    _table([heading for heading, *_ in columns], lines)


def _print_gaps(gaps: list[dict[str, Any]]) -> None:
    """Bidirectional Monte Carlo: between which bounds log Z lies on simulated images."""
    if not gaps:
        return
    print()
    _table(
        ["beta", "gap [nats]", "± s.e.", "log Z at least", "at most", "simulated images"],
        [
            [
                f"{gap['beta']:.4g}",
                f"{gap['gap']:.3f}",
                f"{gap['gap_standard_error']:.3f}",
                f"{gap['forward']:.3f}",
                f"{gap['backward']:.3f}",
                str(gap["images"]),
            ]
            for gap in gaps
        ],
    )


def _conclude_collection(
    evaluation: JobDirectory, result: Path, images: int, missing: list[int]
) -> None:
    if missing:
        print(f"PARTIAL: missing are {evaluation.name_blocks(missing)}")
    print(f"{result}: {images} images, {'partial' if missing else 'complete'}")


def cancel(directory: Path, /) -> None:
    """Cancel jobs that wait or run; runs and chains of AIS are saved, finished blocks stay.

    Args:
        directory: A run or a sweep that was submitted, or an evaluation, RUN/evaluations/NAME.
    """
    from slurm import submit
    from slurm.evaluate import open_directory

    evaluation = open_directory(directory)
    stopped = submit.cancel(evaluation)
    if not stopped:
        print(f"{evaluation.path}: no job waits or runs")
    for job in stopped:
        print(f"cancelled {job.name} ({job.executor} {job.id})")


def _table(header: list[str], lines: list[list[str]]) -> None:
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*header)
        for line in lines:
            table.add_row(*line)
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    for line in [header, *lines]:
        print(
            "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        )


def _relative(path: Path | None) -> str:
    if path is None:
        return ""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
