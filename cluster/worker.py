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
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

import gencomp
import shards
from cluster import checkpoints, data
from cluster.evaluation import evaluate
from cluster.files import write_text
from cluster.runs import Run
from cluster.seat import Seat
from cluster.state import start_or_resume
from cluster.steps import Steps
from cluster.watch import Watch
from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Progress, Supply
from shards.reader import Split
from shards.stream import Batch as HostBatch

# The training stream of this rank, from a position on.
StreamFrom = Callable[[int], Generator[HostBatch, None, None]]


@dataclass(frozen=True)
class Host:
    """What the loop asks of whoever runs it.

    Attributes:
        report: called on every rank after each evaluation, with the same metrics and their `step`;
            the last time when the result is written, so whoever ends a run at a report loses
            nothing.
        should_stop: asked on rank 0 before each step; true means: write a checkpoint and return.
    """

    report: Callable[[dict[str, float]], None] = lambda metrics: None
    should_stop: Callable[[], bool] = lambda: False


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
    recipe = run.recipe()
    _set_up_torch(recipe, seat)
    images, order = data.open_training(recipe)
    held_out = data.open_held_out(recipe)
    _require_same_data([images.key_hash, held_out.key_hash], seat)

    def stream_from(position: int) -> Generator[HostBatch, None, None]:
        return data.training_stream(recipe, images, order, seat.rank, seat.world, position)

    def supply(purpose: str) -> AbstractContextManager[Supply]:
        return _supply(recipe, stream_from, seat, purpose)

    state = start_or_resume(run, recipe, seat, len(images), supply)
    system = state.system
    finished_before = is_done(recipe, state.progress)
    watch = Watch(run, recipe, seat.rank, state.progress, held_out)
    control = _control_group(seat)
    metrics: dict[str, float] = {}

    def evaluated() -> dict[str, float]:
        with state.as_evaluated():
            return evaluate(system, held_out, recipe, seat.rank, seat.world, seat.device)

    if not finished_before:
        steps = Steps(recipe, system, state.optimizers, seat)
    with closing(stream_from(state.progress.samples)) as stream:
        while not is_done(recipe, state.progress):
            if _agree(host.should_stop, seat, control):
                if state.saved != state.progress.step:
                    state.save()
                return Outcome(False, state.progress.step, metrics)
            before = state.progress
            for updated in steps.step(before, lambda: data.to_batch(next(stream), seat.device)):
                watch.updated(*updated)
            if state.averages is not None:
                state.averages.update()
            state.progress = Progress(
                before.step + 1, before.samples + steps.samples(before), before.epoch_length
            )
            watch.stepped(state.progress)
            if state.progress.step % recipe.training.sample_every == 0:
                with state.as_evaluated():
                    watch.sampled(state.progress, system)
            last = is_done(recipe, state.progress)
            if state.progress.step % recipe.evaluation.every == 0 and not last:
                metrics = evaluated()
                watch.evaluated(state.progress, metrics)
                host.report({"step": state.progress.step, **metrics})
            if state.progress.step % recipe.training.checkpoint_every == 0 and not last:
                state.save()

    if not finished_before:
        state.settle()
        with supply("finalise") as batches:
            system.finalise(batches)
    metrics = evaluated()
    progress = state.progress
    if not finished_before:
        watch.evaluated(progress, metrics)
        watch.finished(progress, system)
        state.save()
    if seat.rank == 0:
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
    recipe: BaseRecipe, stream_from: StreamFrom, seat: Seat, purpose: str
) -> Iterator[Supply]:
    """Training batches outside the steps, from the start of the stream, with draws of their own."""
    size = recipe.data.batch_size
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
            for number, host_batch in enumerate(stream)
        )


def _protocol(run: Run, recipe: BaseRecipe, held_out: Split) -> dict[str, Any]:
    """How the final metrics were measured, for whoever compares or merges them."""
    checkpoint = checkpoints.newest(run.checkpoints)
    assert checkpoint is not None
    return {
        "weights": checkpoint.networks_hash(),
        "data": held_out.key_hash,
        "stored": data.stored(shards.open_set(recipe.evaluation_shards()).info),
        "transforms": recipe.data.transforms.model_dump(mode="json"),
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
