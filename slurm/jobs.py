"""What runs inside a job: the pilot, and the measurement of some blocks of images.

submitit pickles these objects, so they hold names and small numbers only. On the preemption signal
it calls `checkpoint` in the signal handler, stores the answer and requeues the job; both jobs go on
from their files, so the answer is a fresh copy. SIGTERM (`scancel`, or a cluster that preempts
without a warning signal) saves the chains and ends the job.
"""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission

from slurm import files
from slurm.directory import JobDirectory
from slurm.plan import Evaluation, open_evaluation

SAVE_SECONDS = 30.0
_REPORT_SECONDS = 1.0
STOPPED = 143


class Pilot:
    """Finds the schedule and the step sizes, and freezes them in `tuning.npz`."""

    def __init__(self, name: str, directory: str) -> None:
        self.name, self.directory = name, directory

    def __call__(self) -> None:
        evaluation = open_evaluation(self.directory)
        settings = evaluation.plan.settings
        with working(evaluation, self.name, settings.pilot_temperatures) as report:
            if not evaluation.tuning.exists():
                _tune(evaluation, report)

    def checkpoint(self) -> DelayedSubmission:
        """The pilot is short: it starts again."""
        return DelayedSubmission(Pilot(self.name, self.directory))


class Measure:
    """Measures blocks, one after another; finished ones are skipped."""

    def __init__(
        self, name: str, directory: str, blocks: Sequence[int], save_seconds: float = SAVE_SECONDS
    ) -> None:
        self.name, self.directory = name, directory
        self.blocks = [int(block) for block in blocks]
        self.save_seconds = save_seconds
        self._open: Any = None

    def __call__(self) -> None:
        evaluation = open_evaluation(self.directory)
        total = (evaluation.plan.settings.temperatures - 1) * len(self.blocks)
        with working(evaluation, self.name, total) as report:
            self._measure(evaluation, report)

    def checkpoint(self) -> DelayedSubmission:
        """Called in the signal handler: save the chains, then let submitit requeue."""
        if self._open is not None:
            self._open.save()
        return DelayedSubmission(Measure(self.name, self.directory, self.blocks, self.save_seconds))

    def _measure(self, evaluation: Evaluation, report: Report) -> None:
        from gencomp.rate_distortion.tuning import Tuning
        from slurm import blocks

        steps = evaluation.plan.settings.temperatures - 1
        place = None
        for count, number in enumerate(self.blocks):
            report.done = count * steps
            if evaluation.part(number).exists():
                continue
            if place is None:
                tuning = Tuning.load(evaluation.tuning)
                place = blocks.Workplace(evaluation, blocks.open_decoder(evaluation), tuning)
            block = self._open = blocks.open_block(place, number)
            saved = time.monotonic()
            try:
                report.began(count * steps + block.at.state.temperature)
                while not block.done:
                    block.advance()
                    report(count * steps + block.at.state.temperature, block.at.ess)
                    if time.monotonic() - saved > self.save_seconds:
                        block.save()
                        saved = time.monotonic()
            except (KeyboardInterrupt, SystemExit):
                block.save()
                raise
            block.finish()
            self._open = None
        report.done = steps * len(self.blocks)


class Report:
    """The progress file of a job, replaced at most once a second."""

    def __init__(self, path: Path, name: str, total: int) -> None:
        before = files.read_json(path) or {}
        self._path, self._last = path, 0.0
        self.done = self._first = 0
        self._since = time.monotonic()
        self._values: dict[str, Any] = {
            "job": name,
            "attempt": before.get("attempt", 0) + 1,
            "host": platform.node(),
            "pid": os.getpid(),
            "started": time.time(),
            "total": total,
        }

    def began(self, done: int) -> None:
        """Work starts here: rates count from now."""
        self._first, self._since = done, time.monotonic()
        self(done)

    def __call__(self, done: int, ess: float | None = None) -> None:
        self.done = done
        if ess is not None:
            self._values["ess"] = ess
        if time.monotonic() - self._last > _REPORT_SECONDS:
            self.write()

    def write(self, ended: str | None = None) -> None:
        """
        Args:
            ended: how the job ended: done, stopped, or failed and why.
        """
        now = time.monotonic()
        advanced = self.done - self._first
        self._last = now
        self._values.update(
            updated=time.time(),
            done=self.done,
            seconds_per_step=(now - self._since) / advanced if advanced > 0 else None,
            ended=ended,
        )
        files.write_json(self._path, self._values, durable=False)


@contextmanager
def working(evaluation: JobDirectory, name: str, total: int) -> Iterator[Report]:
    """Threads, the answer to SIGTERM, and a progress file that says how the job ended."""
    import torch

    torch.set_num_threads(evaluation.threads)
    _clear_stale_pickle()
    report = Report(evaluation.progress(name), name, total)
    report.write()
    previous = signal.signal(signal.SIGTERM, _leave)
    try:
        yield report
    except (KeyboardInterrupt, SystemExit):
        report.write("stopped")
        raise
    except Exception as error:
        report.write(
            f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        )
        raise
    else:
        report.write("done")
    finally:
        signal.signal(signal.SIGTERM, previous)


def _clear_stale_pickle() -> None:
    """submitit refuses to store a checkpoint while one lies there that a killed attempt left."""
    if "SUBMITIT_FOLDER" in os.environ:
        stored = JobEnvironment().paths.submitted_pickle
        stored.with_name(f"{stored.name}.save_tmp").unlink(missing_ok=True)


def _leave(signum: int, frame: Any) -> None:
    # Whoever asks may ask again, and saving must not be cut short.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(STOPPED)


def _tune(evaluation: Evaluation, report: Report) -> None:
    import math

    from gencomp.rate_distortion import pilot
    from slurm import blocks

    plan, settings = evaluation.plan, evaluation.plan.settings
    decoder = blocks.open_decoder(evaluation)
    images = blocks.load_images(evaluation, plan.pilot_rows, decoder)
    report.began(0)
    pilot.tune(
        Counted(images, report),
        decoder.latent_dim,
        beta_max=settings.beta_max,
        temperatures=settings.temperatures,
        chains=settings.chains,
        leapfrog=settings.leapfrog,
        seed=settings.tuning_seed,
        image_ids=plan.pilot_rows,
        prior_scale=math.sqrt(decoder.prior_variance),
        pilot_temperatures=settings.pilot_temperatures,
    ).save(evaluation.tuning)


class Counted:
    """A distortion that reports each of its values: the pilot asks for one per temperature."""

    def __init__(self, distortion: Any, report: Report) -> None:
        self._distortion, self._report, self._count = distortion, report, 0

    @property
    def x_IN(self) -> Any:
        return self._distortion.x_IN

    def value_and_grad(self, z_IMK: Any) -> Any:
        self._count += 1
        self._report(self._count)
        return self._distortion.value_and_grad(z_IMK)

    def grad(self, z_IMK: Any) -> Any:
        return self._distortion.grad(z_IMK)
