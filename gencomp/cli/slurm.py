"""`gencomp slurm`: evaluations as many restartable jobs, on Slurm or on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from gencomp.cli.evaluate import MetricOptions, show
from gencomp.cli.slurm_jobs import SUBMISSION, Submission, duration

if TYPE_CHECKING:
    from slurm.directory import JobDirectory
    from slurm.evaluate import MetricJobs
    from slurm.plan import Evaluation


def ais(
    run: Path,
    /,
    name: str = "ais",
    split: str = "test",
    images: int = 16,
    chains: int = 4,
    temperatures: int = 100,
    points: int = 30,
    beta_max: float = 10.0,
    leapfrog: int = 20,
    seed: int = 7,
    tuning_seed: int = 6,
    block: int = 2,
    pilot_images: int = 3,
    pilot_temperatures: int = 80,
    device: Literal["cpu", "cuda"] = "cpu",
    submission: Annotated[Submission, tyro.conf.OmitArgPrefixes] = SUBMISSION,
) -> int:
    """Evaluate the rate-distortion curve of a run's generator by annealed importance sampling.

    One pilot job tunes the sampler on some of the images with a seed of its own; measuring jobs
    follow it. The same command again submits only what is missing; jobs go on where they were
    interrupted. On Slurm it returns after submission unless --wait; on this machine it always
    waits, and Ctrl-C saves and stops its jobs. Options of sbatch that are not given are left to
    SBATCH_* variables and to the site.

    Args:
        run: Directory of a finished run whose system has a decoder from a latent prior.
        name: Name of the evaluation, a directory in RUN/evaluations.
        split: Split to measure.
        images: Images to measure, evenly spaced over the split.
        chains: Chains per image.
        temperatures: Inverse temperatures of the schedule; more bring the curve closer to the
            generator's own.
        points: Temperatures reported.
        beta_max: Last inverse temperature, of the squared error summed over an image's values.
        leapfrog: Leapfrog steps at each temperature.
        seed: Seed of the measurement.
        tuning_seed: Seed of the pilot, another one.
        block: Images whose chains move together; more suit a GPU.
        pilot_images: Measured images that the pilot tunes on, with the tuning seed.
        pilot_temperatures: Inverse temperatures of the pilot.
        device: Where the decoder runs.
        submission: How the jobs run.
    """
    from cluster.runs import open_run
    from slurm import plan

    submission.check()
    opened = open_run(run)
    wanted = plan.make(
        opened,
        plan.settings(
            split=split,
            images=images,
            block=block,
            chains=chains,
            temperatures=temperatures,
            points=points,
            beta_max=beta_max,
            leapfrog=leapfrog,
            seed=seed,
            tuning_seed=tuning_seed,
            pilot_images=pilot_images,
            pilot_temperatures=pilot_temperatures,
            threads=submission.cpus_per_task,
            device=device,
        ),
    )
    if submission.dry_run:
        return submission.show(plan.find(opened, name, wanted))
    return submission.submit(plan.enter(opened, name, wanted))


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

    submission.check()
    opened = open_run(run)
    protocol = metric.protocol(opened, submission.cpus_per_task)
    if submission.dry_run:
        return submission.show(metrics.find(opened, metric.name, protocol))
    return submission.submit(metrics.enter(opened, metric.name, protocol))


def status(directory: Path, /) -> None:
    """Show where each job of an evaluation stands.

    Args:
        directory: The evaluation, RUN/evaluations/NAME.
    """
    from slurm import status as standing
    from slurm.evaluate import open_directory

    evaluation = open_directory(directory)
    rows = standing.rows(evaluation)
    total = len(evaluation.block_sizes)
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
    print(f"{evaluation.path}: {total - len(evaluation.missing())} of {total} blocks are finished")


def collect(
    directory: Path, /, require_all: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
) -> None:
    """Merge what the jobs have written: into curve.parquet and curve.json, or into metrics.json.

    May be called while jobs still run; the result then says which blocks are missing.

    Args:
        directory: The evaluation, RUN/evaluations/NAME.
        require_all: Refuse while blocks are missing.
    """
    from slurm.evaluate import MetricJobs, open_directory
    from slurm.plan import Evaluation

    opened = open_directory(directory)
    if isinstance(opened, MetricJobs):
        _collect_metrics(opened, require_all)
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
    header = ["beta", "rate [nats]", "± s.e.", "bpp", "MSE", "± s.e.", "ESS", "acceptance"]
    _table(
        header,
        [
            [
                f"{p['beta']:.4g}",
                f"{p['rate']:.2f}",
                f"{p['rate_standard_error']:.2f}",
                f"{p['bpp']:.5f}",
                f"{p['mse']:.5f}",
                f"{p['mse_standard_error']:.5f}",
                f"{p['ess']:.1f}",
                f"{p['acceptance']:.2f}",
            ]
            for p in (points[i] for i in shown)
        ],
    )
    result = evaluation.path / "curve.json"
    _conclude_collection(evaluation, result, curve.means["images"], curve.missing)


def _conclude_collection(
    evaluation: JobDirectory, result: Path, images: int, missing: list[int]
) -> None:
    if missing:
        print(f"PARTIAL: missing are {evaluation.name_blocks(missing)}")
    print(f"{result}: {images} images, {'partial' if missing else 'complete'}")


def cancel(directory: Path, /) -> None:
    """Cancel the jobs of an evaluation; chains of AIS are saved, and finished blocks stay.

    Args:
        directory: The evaluation, RUN/evaluations/NAME.
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
