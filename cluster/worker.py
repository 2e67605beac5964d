"""The training loop: for step: for update: forward, backward, optimizer step.

The loop knows no system by name and no engine. It is given its place (rank, world size, device) in
a process group that is already initialised, and a host whose functions it calls. The same loop runs
under Ray Train, in a Tune trial, under `torchrun` and in one process.

Everything random is a pure function of (seed, step), and the order of samples is one of (data,
seed), so a checkpoint needs two integers beside the weights and optimizers: steps done and samples
consumed. The same recipe, data and world size give bit-identical weights, with or without
interruption.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

import gencomp
from cluster import data, provenance
from cluster.files import write_text
from cluster.logs import process_log
from cluster.logs.watchdog import STALL_SECONDS, Beat, watchdog
from cluster.runs import Run
from cluster.training import agreement
from cluster.training.evaluate import evaluate
from cluster.training.protocol import protocol
from cluster.training.recorder import Recorder
from cluster.training.state import State, start_or_resume
from cluster.training.steps import Steps
from cluster.training.worker_info import WorkerInfo
from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Progress, Supply
from shards.reading.reader import Split
from shards.reading.stream import Batch as HostBatch

log = logging.getLogger(__name__)

# A function that gives the training stream of this rank from a position on.
StreamFrom = Callable[[int], Generator[HostBatch, None, None]]


@dataclass(frozen=True)
class Host:
    """The functions and the limit by which the loop depends on the program that runs it.

    Attributes:
        report: a function that is called on every rank after each evaluation, with the same metrics
            and their `step`. The last call comes after the result is written, so a run that is
            ended at a report loses nothing. Ray Tune ends it by SystemExit, which is no failure.
        should_stop: a function that rank 0 calls before each step; if it gives True, the loop
            writes a checkpoint and returns.
        may_write: a function that rank 0 calls before each write into the run; it raises an error
            if another process has taken the run over.
        stall_seconds: the time without progress after which the process ends and leaves its stacks
            in the log of its rank (see `cluster.logs.watchdog`); None: it never does.
    """

    report: Callable[[dict[str, float]], None] = lambda metrics: None
    should_stop: Callable[[], bool] = lambda: False
    may_write: Callable[[], None] = lambda: None
    stall_seconds: float | None = STALL_SECONDS


@dataclass(frozen=True)
class Outcome:
    """The end of training: finished, or stopped on request with a checkpoint at `step`."""

    finished: bool
    step: int
    metrics: dict[str, float]


def train(run: Run, worker: WorkerInfo, host: Host) -> Outcome:
    """Train a run to its end, or until the host wants to stop.

    Raises:
        InputError: the shard set, a parent run or every checkpoint of the run is missing or
            damaged, or the workers see different data.
    """
    with (
        process_log.journal(run.path, worker.rank, console=worker.rank == 0) as journal,
        watchdog(journal, worker.rank, host.stall_seconds) as beat,
    ):
        try:
            outcome = _train(run, worker, host, journal, beat)
        except SystemExit as left:
            if not left.code:
                _log_end(run.result() is not None, journal.step)
            raise
        _log_end(outcome.finished, outcome.step)
        return outcome


def _train(
    run: Run, worker: WorkerInfo, host: Host, journal: process_log.Journal, beat: Beat
) -> Outcome:
    if worker.rank == 0:
        host.may_write()
    recipe = run.recipe()
    _set_up_torch(recipe, worker)
    images, order = data.open_training(recipe)
    held_out = data.open_held_out(recipe)
    agreement.require_same_data([images.key_hash, held_out.key_hash], worker)

    def stream_from(position: int) -> Generator[HostBatch, None, None]:
        return data.training_stream(recipe, images, order, worker.rank, worker.world, position)

    def supply(purpose: str) -> AbstractContextManager[Supply]:
        return _supply(recipe, stream_from, worker, purpose, beat)

    state = start_or_resume(run, recipe, worker, len(images), supply)
    journal.step = state.progress.step
    _log_start(worker, state.progress.step)
    recorder = Recorder(run, recipe, worker.rank, state.progress, held_out, host.may_write)
    attempt = Attempt(run, recipe, worker, host, journal, beat, held_out, state, recorder)
    control = agreement.control_group(worker)
    if is_done(recipe, state.progress):
        with closing(state):
            return attempt.finished(attempt.evaluated())

    steps = Steps(recipe, state.system, state.optimizers, worker)
    with closing(stream_from(state.progress.samples)) as stream, closing(state):
        while not is_done(recipe, state.progress):
            if agreement.agree(host.should_stop, worker, control):
                return attempt.stopped()
            before = state.progress
            for updated in steps.step(before, lambda: data.to_batch(next(stream), worker.device)):
                recorder.updated(*updated)
                beat("training")
            attempt.stepped(steps.samples(before))
            attempt.look()
    state.settle()
    with supply("finalise") as batches:
        state.system.finalise(batches)
    metrics = attempt.evaluated()
    recorder.evaluated(state.progress, metrics)
    recorder.finished(state.progress, state.system)
    attempt.save()
    return attempt.finished(metrics)


@dataclass
class Attempt:
    """The work of one worker around the steps, from a start to the next stop.

    Attributes:
        metrics: the metrics of this attempt's newest evaluation.
    """

    run: Run
    recipe: BaseRecipe
    worker: WorkerInfo
    host: Host
    journal: process_log.Journal
    beat: Beat
    held_out: Split
    state: State
    recorder: Recorder
    metrics: dict[str, float] = field(default_factory=dict)

    def stepped(self, samples: int) -> None:
        """Count a step, which has taken a number of images (`samples`) from the stream."""
        state = self.state
        if state.averages is not None:
            state.averages.update()
        before = state.progress
        state.progress = Progress(before.step + 1, before.samples + samples, before.epoch_length)
        self.journal.step = state.progress.step
        self.recorder.stepped(state.progress)

    def look(self) -> None:
        """Draw samples, evaluate and save, each if the recipe says so at this step."""
        recipe, state, progress = self.recipe, self.state, self.state.progress
        if progress.step % recipe.training.sample_every == 0:
            self.beat("sample grid")
            with state.as_evaluated():
                self.recorder.sampled(progress, state.system)
        last = is_done(recipe, progress)  # the end of training evaluates and saves by itself
        if progress.step % recipe.evaluation.every == 0 and not last:
            self.metrics = self.evaluated()
            self.recorder.evaluated(progress, self.metrics)
            self.host.report({"step": progress.step, **self.metrics})
        if progress.step % recipe.training.checkpoint_every == 0 and not last:
            self.save()
        self.beat("training")

    def evaluated(self) -> dict[str, float]:
        """The metrics of the weights that evaluations use."""
        state, worker = self.state, self.worker
        with state.as_evaluated():
            self.beat("evaluation")
            return evaluate(
                state.system,
                self.held_out,
                self.recipe,
                worker.rank,
                worker.world,
                worker.device,
                beat=lambda: self.beat("evaluation"),
            )

    def save(self) -> None:
        """Write a checkpoint, unless another process has taken the run over."""
        self.beat("checkpoint")
        if self.worker.rank == 0:
            self.host.may_write()
        self.state.save()

    def stopped(self) -> Outcome:
        """Write a checkpoint of this step, unless there is one, and end the attempt."""
        if self.state.saved != self.state.progress.step:
            self.save()
        self.state.flush()
        return Outcome(False, self.state.progress.step, self.metrics)

    def finished(self, metrics: dict[str, float]) -> Outcome:
        """Write the result and end the attempt."""
        progress = self.state.progress
        self.state.flush()
        self.beat("end")
        if self.worker.rank == 0:
            self.host.may_write()
            result: dict[str, Any] = {"step": progress.step, "samples": progress.samples, **metrics}
            result["protocol"] = protocol(self.run, self.recipe, self.held_out)
            write_text(self.run.path / "result.json", json.dumps(result, indent=1))
        self.host.report({"step": progress.step, **metrics})
        return Outcome(True, progress.step, metrics)


def is_done(recipe: BaseRecipe, progress: Progress) -> bool:
    """Whether training has reached the recipe's length, in steps or in epochs."""
    if recipe.training.steps is not None:
        return progress.step >= recipe.training.steps
    assert recipe.training.epochs is not None
    return progress.epoch >= recipe.training.epochs


def require_shares(recipe: BaseRecipe, workers: int) -> None:
    """Raise `InputError` unless every worker gets an image of every batch."""
    if not 1 <= workers <= recipe.data.batch_size:
        raise InputError(
            f"data.batch_size is {recipe.data.batch_size}, but there are {workers} workers:"
            " there must be at least one, and each needs at least one image of every batch"
        )


def _set_up_torch(recipe: BaseRecipe, worker: WorkerInfo) -> None:
    require_shares(recipe, worker.world)
    if recipe.training.deterministic:  # cuBLAS reads this when it is first used
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(recipe.training.deterministic, warn_only=True)
    # Deterministic mode would also fill new memory, which nothing here reads before writing to it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _log_start(worker: WorkerInfo, step: int) -> None:
    cuda = worker.device.type == "cuda"
    log.info(
        "attempt starts from step %d: rank %d of %d on %s",
        step,
        worker.rank,
        worker.world,
        worker.device,
        extra=process_log.details(
            event="start",
            world=worker.world,
            device=torch.cuda.get_device_name(worker.device) if cuda else str(worker.device),
            versions={
                "gencomp": gencomp.__version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "cuda": torch.version.cuda if cuda else None,
                # One rank asks git, as hundreds at once would burden a shared file system.
                **(provenance.code() if worker.rank == 0 else {}),
            },
        ),
    )


def _log_end(finished: bool, step: int | None) -> None:
    how = "finished" if finished else "stopped"
    log.info("%s at step %s", how, step, extra=process_log.details(event="end", outcome=how))


@contextmanager
def _supply(
    recipe: BaseRecipe, stream_from: StreamFrom, worker: WorkerInfo, purpose: str, beat: Beat
) -> Iterator[Supply]:
    """Training batches for a purpose beside the steps: from the start, with draws of their own."""
    size = recipe.data.batch_size

    def beating(stream: Iterator[HostBatch]) -> Iterator[HostBatch]:
        for host_batch in stream:
            beat(purpose)
            yield host_batch

    with closing(stream_from(0)) as stream:
        yield (
            (
                data.to_batch(host_batch, worker.device),
                Draws(
                    recipe.training.seed,
                    (purpose, number),
                    size,
                    worker.rank,
                    worker.world,
                    worker.device,
                ),
            )
            for number, host_batch in enumerate(beating(stream))
        )
