"""The training loop: for step: for update: forward, backward, optimiser step.

It knows no system by name and no engine. It is given its seat (rank, world size, device) in a
process group that is already initialised, and a host with two callables. The same loop runs under
Ray Train, in a Tune trial, under `torchrun` and in one process.

Everything random is a pure function of (seed, step), and the order of samples one of (data, seed),
so a checkpoint needs two integers beside the weights and optimisers: steps done and samples
consumed. Same recipe, data and world size give bit-identical weights, with or without interruption.
"""

from __future__ import annotations

import json
import logging
import platform
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

import gencomp
import shards
from cluster import data
from cluster.checkpoints import store
from cluster.files import write_text
from cluster.logs import process_log
from cluster.logs.watchdog import STALL_SECONDS, Beat, watchdog
from cluster.runs import Run
from cluster.training.evaluate import evaluate
from cluster.training.recorder import Watch
from cluster.training.state import start_or_resume
from cluster.training.steps import Steps
from cluster.training.worker_info import Seat
from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Progress, Supply
from shards.reading.reader import Split
from shards.reading.stream import Batch as HostBatch

log = logging.getLogger(__name__)

# The training stream of this rank, from a position on.
StreamFrom = Callable[[int], Generator[HostBatch, None, None]]


@dataclass(frozen=True)
class Host:
    """What the loop asks of whoever runs it.

    Attributes:
        report: called on every rank after each evaluation, with the same metrics and their `step`;
            the last time when the result is written, so whoever ends a run at a report loses
            nothing. Ray Tune does so by SystemExit, which is no failure.
        should_stop: asked on rank 0 before each step; true means: write a checkpoint and return.
        may_write: called on rank 0 before each write into the run; raises where another process has
            taken the run over.
        stall_seconds: without progress for so long, the process ends and leaves its stacks in the
            log of its rank (see `cluster.logs.watchdog`); None: never.
    """

    report: Callable[[dict[str, float]], None] = lambda metrics: None
    should_stop: Callable[[], bool] = lambda: False
    may_write: Callable[[], None] = lambda: None
    stall_seconds: float | None = STALL_SECONDS


@dataclass(frozen=True)
class Outcome:
    """How training ended: finished, or stopped on request with a checkpoint at `step`."""

    finished: bool
    step: int
    metrics: dict[str, float]


def train(run: Run, seat: Seat, host: Host) -> Outcome:
    """Train a run to its end, or until the host wants to stop.

    Raises:
        InputError: the shard set, a parent run or every checkpoint of the run is missing or
            damaged, or the workers see different data.
    """
    with (
        process_log.journal(run.path, seat.rank, console=seat.rank == 0) as journal,
        watchdog(journal, seat.rank, host.stall_seconds) as beat,
    ):
        try:
            outcome = _train(run, seat, host, journal, beat)
        except SystemExit as left:
            if not left.code:
                _log_end(run.result() is not None, journal.step)
            raise
        _log_end(outcome.finished, outcome.step)
        return outcome


def _train(run: Run, seat: Seat, host: Host, journal: process_log.Journal, beat: Beat) -> Outcome:
    if seat.rank == 0:
        host.may_write()
    recipe = run.recipe()
    _set_up_torch(recipe, seat)
    images, order = data.open_training(recipe)
    held_out = data.open_held_out(recipe)
    _require_same_data([images.key_hash, held_out.key_hash], seat)

    def stream_from(position: int) -> Generator[HostBatch, None, None]:
        return data.training_stream(recipe, images, order, seat.rank, seat.world, position)

    def supply(purpose: str) -> AbstractContextManager[Supply]:
        return _supply(recipe, stream_from, seat, purpose, beat)

    state = start_or_resume(run, recipe, seat, len(images), supply)
    system = state.system
    finished_before = is_done(recipe, state.progress)
    journal.step = state.progress.step
    _log_start(seat, state.progress.step)
    watch = Watch(run, recipe, seat.rank, state.progress, held_out, host.may_write)
    control = _control_group(seat)
    metrics: dict[str, float] = {}

    def evaluated() -> dict[str, float]:
        with state.as_evaluated():
            beat("evaluation")
            place = (seat.rank, seat.world, seat.device)
            return evaluate(system, held_out, recipe, *place, beat=lambda: beat("evaluation"))

    def save() -> None:
        beat("checkpoint")
        if seat.rank == 0:
            host.may_write()
        state.save()

    if not finished_before:
        steps = Steps(recipe, system, state.optimizers, seat)
    with closing(stream_from(state.progress.samples)) as stream, closing(state):
        while not is_done(recipe, state.progress):
            if _agree(host.should_stop, seat, control):
                if state.saved != state.progress.step:
                    save()
                state.flush()
                return Outcome(False, state.progress.step, metrics)
            before = state.progress
            for updated in steps.step(before, lambda: data.to_batch(next(stream), seat.device)):
                watch.updated(*updated)
                beat("training")
            if state.averages is not None:
                state.averages.update()
            state.progress = Progress(
                before.step + 1, before.samples + steps.samples(before), before.epoch_length
            )
            journal.step = state.progress.step
            watch.stepped(state.progress)
            if state.progress.step % recipe.training.sample_every == 0:
                beat("sample grid")
                with state.as_evaluated():
                    watch.sampled(state.progress, system)
            last = is_done(recipe, state.progress)
            if state.progress.step % recipe.evaluation.every == 0 and not last:
                metrics = evaluated()
                watch.evaluated(state.progress, metrics)
                host.report({"step": state.progress.step, **metrics})
            if state.progress.step % recipe.training.checkpoint_every == 0 and not last:
                save()
            beat("training")

    if not finished_before:
        state.settle()
        with supply("finalise") as batches:
            system.finalise(batches)
    metrics = evaluated()
    progress = state.progress
    if not finished_before:
        watch.evaluated(progress, metrics)
        watch.finished(progress, system)
        save()
    state.flush()
    beat("end")
    if seat.rank == 0:
        host.may_write()
        result: dict[str, Any] = {"step": progress.step, "samples": progress.samples, **metrics}
        result["protocol"] = _protocol(run, recipe, held_out)
        write_text(run.path / "result.json", json.dumps(result, indent=1))
    host.report({"step": progress.step, **metrics})
    return Outcome(True, progress.step, metrics)


def is_done(recipe: BaseRecipe, progress: Progress) -> bool:
    """Whether the recipe's length, in steps or in epochs, is reached."""
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


def _set_up_torch(recipe: BaseRecipe, seat: Seat) -> None:
    require_shares(recipe, seat.world)
    torch.use_deterministic_algorithms(recipe.training.deterministic, warn_only=True)
    # Deterministic mode also fills new memory, which nothing here reads before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _log_start(seat: Seat, step: int) -> None:
    cuda = seat.device.type == "cuda"
    log.info(
        "attempt starts from step %d: rank %d of %d on %s",
        step,
        seat.rank,
        seat.world,
        seat.device,
        extra=process_log.details(
            event="start",
            world=seat.world,
            device=torch.cuda.get_device_name(seat.device) if cuda else str(seat.device),
            versions={
                "gencomp": gencomp.__version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "cuda": torch.version.cuda if cuda else None,
            },
        ),
    )


def _log_end(finished: bool, step: int | None) -> None:
    how = "finished" if finished else "stopped"
    log.info("%s at step %s", how, step, extra=process_log.details(event="end", outcome=how))


def _require_same_data(hashes: list[str], seat: Seat) -> None:
    """Raise `InputError` on every rank when the ranks do not see the same images."""
    if seat.world == 1:
        return
    mine = (socket.gethostname(), hashes)
    seen: list[Any] = [None] * seat.world
    dist.all_gather_object(seen, mine)
    for rank, (host, found) in enumerate(seen):
        if found != seen[0][1]:
            raise InputError(
                f"the workers see different data: rank 0 on {seen[0][0]} has the index"
                f" {seen[0][1][0][:16]}, rank {rank} on {host} has {found[0][:16]};"
                " every node must see the same shard set (copy it again, or use shared storage)"
            )


@contextmanager
def _supply(
    recipe: BaseRecipe, stream_from: StreamFrom, seat: Seat, purpose: str, beat: Beat
) -> Iterator[Supply]:
    """Training batches outside the steps, from the start of the stream, with draws of their own."""
    size = recipe.data.batch_size

    def beating(stream: Iterator[HostBatch]) -> Iterator[HostBatch]:
        for host_batch in stream:
            beat(purpose)
            yield host_batch

    with closing(stream_from(0)) as stream:
        yield (
            (
                data.to_batch(host_batch, seat.device),
                Draws(
                    recipe.training.seed,
                    (purpose, number),
                    size,
                    seat.rank,
                    seat.world,
                    seat.device,
                ),
            )
            for number, host_batch in enumerate(beating(stream))
        )


def _protocol(run: Run, recipe: BaseRecipe, held_out: Split) -> dict[str, Any]:
    """How the final metrics were measured, for whoever compares or merges them."""
    checkpoint = store.newest(run.checkpoints)
    assert checkpoint is not None
    return {
        "weights": checkpoint.networks_hash(),
        "data": held_out.key_hash,
        "stored": data.stored(shards.open_set(recipe.evaluation_shards()).info),
        "transforms": data.evaluation_protocol(recipe),
        "limit": recipe.evaluation.limit,
        "batch_size": recipe.evaluation.batch_size,
        "seed": recipe.training.seed,
        "gencomp": gencomp.__version__,
    }


def _control_group(seat: Seat) -> Any:
    """A process group for CPU messages, so that asking to stop never waits for a GPU."""
    if seat.world == 1 or dist.get_backend() == "gloo":
        return None
    return dist.new_group(backend="gloo")


def _agree(should_stop: Callable[[], bool], seat: Seat, control: Any) -> bool:
    """Rank 0's answer, on every rank."""
    if seat.world == 1:
        return should_stop()
    answer = torch.tensor([seat.rank == 0 and should_stop()], dtype=torch.uint8)
    dist.broadcast(answer, src=0, group=control)
    return bool(answer.item())
