"""`gencomp slurm`: evaluations as many restartable jobs, on Slurm or on this machine."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from slurm.plan import Evaluation

_INTERRUPTED = 130
_SECONDS_BETWEEN_LINES = 10.0
Repeated = tyro.conf.UseAppendAction[tuple[str, ...]]


def ais(
    run: Path,
    /,
    name: str = "ais",
    split: str = "test",
    images: int = 16,
    jobs: int = 4,
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
    executor: Literal["auto", "slurm", "local", "debug"] = "auto",
    max_parallel: int | None = None,
    cpus_per_task: int = 1,
    partition: str | None = None,
    account: str | None = None,
    qos: str | None = None,
    constraint: str | None = None,
    gres: str | None = None,
    time: str | None = None,
    mem: str | None = None,
    setup: Repeated = (),
    sbatch: Repeated = (),
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    wait: bool = False,
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
        jobs: Measuring jobs; the result does not depend on their number.
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
        executor: auto: slurm where a controller answers, else local; debug runs inside this
            process.
        max_parallel: Jobs at once; by default no limit on Slurm, and one per CPU here.
        cpus_per_task: CPUs, and threads, of a job.
        partition: For Slurm, as for sbatch.
        account: For Slurm, as for sbatch.
        qos: For Slurm, as for sbatch.
        constraint: For Slurm, as for sbatch.
        gres: For Slurm, as for sbatch, for example gpu:1.
        time: For Slurm: minutes, HH:MM:SS or D-HH:MM:SS; an hour by default. A job that reaches it
            goes on
            in its next attempt.
        mem: For Slurm, as for sbatch, for example 8G.
        setup: For Slurm: a line of shell before the command, such as a module load; repeatable.
        sbatch: For Slurm: any other option of sbatch as KEY=VALUE; repeatable.
        dry_run: Print the batch scripts; submit nothing and write nothing.
        wait: On Slurm, wait for the jobs; Ctrl-C then leaves them running.
    """
    from cluster.files import locked
    from slurm import plan, submit
    from slurm.options import SlurmOptions

    if max_parallel is not None and max_parallel < 1:
        from gencomp.errors import InputError

        raise InputError(f"--max-parallel {max_parallel} must be at least 1")
    asked = SlurmOptions(
        partition, account, qos, constraint, gres, time, mem, sbatch, setup, max_parallel
    )
    _ = asked.minutes  # a wrong time is refused before anything is written
    from cluster.runs import open_run

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
            threads=cpus_per_task,
            device=device,
        ),
    )
    if dry_run:
        place = plan.find(opened, name, wanted)
        print(submit.dry_run(place, submit.divide(place, jobs, "slurm"), asked), end="")
        return 0
    chosen = submit.choose(executor)
    evaluation = plan.enter(opened, name, wanted)
    busy = (
        "{directory} is being worked on by {holder}; "
        "`gencomp slurm status {directory}` shows how far it is"
    )
    with locked(evaluation.path, busy):
        work = submit.divide(evaluation, jobs, chosen)
        _announce(evaluation, work, chosen, executor)
        if not (work.jobs or work.living):
            return 0
        if chosen == "debug":
            submit.run_here(evaluation, work)
        elif chosen == "local":
            parallel = max_parallel or max(1, len(os.sched_getaffinity(0)) // cpus_per_task)
            with _progress(evaluation) as show:
                finished = submit.run_locally(evaluation, work, parallel, show)
            if not finished:
                print("stopped; the jobs have saved their chains, and the same command goes on")
                return _INTERRUPTED
        else:
            for job in submit.to_slurm(evaluation, work, asked):
                print(f"submitted {job.name} as job {job.id}")
            if not wait:
                print(f"gencomp slurm status {evaluation.path} shows where they stand")
                return 0
            try:
                with _progress(evaluation) as show:
                    submit.wait_for_slurm(evaluation, show)
            except KeyboardInterrupt:
                print(
                    f"the jobs stay in the queue; gencomp slurm cancel {evaluation.path} ends them"
                )
                return _INTERRUPTED
    return _conclude(evaluation)


def status(directory: Path, /) -> None:
    """Show where each job of an evaluation stands.

    Args:
        directory: The evaluation, RUN/evaluations/NAME.
    """
    from slurm import status as standing
    from slurm.plan import open_evaluation

    evaluation = open_evaluation(directory)
    rows = standing.rows(evaluation)
    total = len(evaluation.plan.blocks)
    header = ["job", "id", "state", "attempt", "progress", "ESS", "elapsed", "left", "log"]
    lines = [
        [
            row.name,
            row.id,
            row.state,
            str(row.attempt or ""),
            f"{row.done}/{row.total}",
            "" if row.ess is None else f"{row.ess:.1f}",
            _duration(row.elapsed),
            _duration(row.left),
            _relative(row.log),
        ]
        for row in rows
    ]
    _table(header, lines)
    print(f"{evaluation.path}: {total - len(evaluation.missing())} of {total} blocks are finished")


def collect(
    directory: Path, /, require_all: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
) -> None:
    """Merge what the jobs have written into curve.parquet and curve.json.

    May be called while jobs still run; the curve then says which blocks are missing.

    Args:
        directory: The evaluation, RUN/evaluations/NAME.
        require_all: Refuse while blocks are missing.
    """
    from slurm import collect as merging
    from slurm.plan import open_evaluation

    evaluation = open_evaluation(directory)
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
    if curve.missing:
        print(f"PARTIAL: missing are {merging.name_blocks(evaluation, curve.missing)}")
    state = "complete" if not curve.missing else "partial"
    print(f"{evaluation.path / 'curve.json'}: {curve.means['images']} images, {state}")


def cancel(directory: Path, /) -> None:
    """Cancel the jobs of an evaluation; they save their chains, and finished blocks stay.

    Args:
        directory: The evaluation, RUN/evaluations/NAME.
    """
    from slurm import submit
    from slurm.plan import open_evaluation

    evaluation = open_evaluation(directory)
    stopped = submit.cancel(evaluation)
    if not stopped:
        print(f"{evaluation.path}: no job waits or runs")
    for job in stopped:
        print(f"cancelled {job.name} ({job.executor} {job.id})")


def _announce(evaluation: Evaluation, work: object, chosen: str, wish: str) -> None:
    from slurm.submit import Work

    assert isinstance(work, Work)
    where = {
        "slurm": "on Slurm",
        "local": "on this machine",
        "debug": "inside this process",
    }[chosen]
    if wish == "auto" and chosen == "local":
        where += " (no Slurm controller answers)"
    missing, total = len(evaluation.missing()), len(evaluation.plan.blocks)
    if not missing:
        print(f"{evaluation.path}: all {total} blocks are finished")
        return
    pilot = "a pilot and " if work.pilot else ""
    print(
        f"{evaluation.path}: {missing} of {total} blocks to measure, "
        f"{pilot}{len(work.measures)} jobs {where}",
        flush=True,
    )
    for job in work.living:
        print(f"{job.name} ({job.executor} {job.id}) of an earlier command still lives")


def _conclude(evaluation: Evaluation) -> int:
    from slurm import collect as merging
    from slurm import status as standing

    if not (missing := evaluation.missing()):
        print(
            f"all {len(evaluation.plan.blocks)} blocks are finished; "
            f"gencomp slurm collect {evaluation.path} merges them"
        )
        return 0
    print(f"missing are {merging.name_blocks(evaluation, missing)}", file=sys.stderr)
    for row in standing.rows(evaluation):
        if row.state != "done":
            print(f"{row.name}: {row.state}; log {row.log}", file=sys.stderr)
    return 1


@contextmanager
def _progress(evaluation: Evaluation) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, else a line every ten seconds."""
    from slurm.status import summary

    last = time.monotonic()

    def text() -> tuple[str, float, str]:
        now = summary(evaluation)
        words = [f"{now.running} running"]
        if now.ess is not None:
            words.append(f"ESS {now.ess:.1f}")
        if now.left is not None:
            words.append(f"{_duration(now.left)} left for the running jobs")
        return now.phase, now.fraction, ", ".join(words)

    if not sys.stdout.isatty():

        def line() -> None:
            nonlocal last
            if time.monotonic() - last > _SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                phase, fraction, words = text()
                print(f"  {phase} {fraction:.0%}  {words}", flush=True)

        yield line
        return

    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("pilot", total=1.0, text="starting")

        def update() -> None:
            nonlocal last
            if time.monotonic() - last > 1:
                last = time.monotonic()
                phase, fraction, words = text()
                bar.update(task, description=phase, completed=fraction, text=words)

        yield update


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


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _relative(path: Path | None) -> str:
    if path is None:
        return ""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
