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
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import gencomp
import shards
from cluster import checkpoints
from cluster.evaluation import evaluate, to_batch
from cluster.files import write_text
from cluster.runs import Run, open_run
from cluster.watch import Watch
from gencomp.draws import CPU, Draws
from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Batch, Progress, Supply, System
from gencomp.systems import build_system
from shards.order import EpochOrder
from shards.reader import Split
from shards.stream import Batch as HostBatch
from shards.stream import training_batches


@dataclass(frozen=True)
class Seat:
    """This process's place among the workers of a run."""

    rank: int = 0
    world: int = 1
    device: torch.device = CPU


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
            damaged.
    """
    recipe = run.recipe()
    training = recipe.training
    _set_up_torch(recipe, seat)
    shard_set = shards.open_set(recipe.data.shards)
    split, held_out = shard_set.split(recipe.data.split), shard_set.split(recipe.evaluation.split)
    system, optimizers, progress = _start_or_resume(run, recipe, split, seat)
    phases = {name: _distributed(phase, seat) for name, phase in system.phases.items()}
    stream = _stream(recipe, split, seat, start=progress.samples)
    watch = Watch(run, recipe, seat.rank, progress, held_out)
    control = _control_group(seat)
    metrics: dict[str, float] = {}
    saved = progress.step
    batch: Batch | None = None

    def save() -> None:
        nonlocal saved
        if seat.rank == 0:
            _save(run, recipe, system, optimizers, progress, seat.world)
        saved = progress.step

    try:
        finished_before = is_done(recipe, progress)
        while not is_done(recipe, progress):
            if _agree(host.should_stop, seat, control):
                if saved != progress.step:
                    save()
                return Outcome(False, progress.step, metrics)
            consumed = progress.samples
            for number, update in enumerate(system.updates(progress)):
                if update.fresh_batch:
                    batch = to_batch(next(stream), seat.device)
                    consumed += recipe.data.batch_size
                if batch is None:
                    raise RuntimeError("the first update after a start must take a fresh batch")
                phase, optimizer = system.phases[update.phase], optimizers[update.phase]
                rates = system.learning_rates(update.phase, progress)
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate
                draws = Draws(
                    seed=training.seed,
                    key=("train", progress.step, number),
                    batch_size=recipe.data.batch_size,
                    rank=seat.rank,
                    world=seat.world,
                    device=seat.device,
                )
                phase.take_over()
                optimizer.zero_grad(set_to_none=True)
                loss, terms = phases[update.phase](batch, draws, progress)
                loss.backward()
                optimizer.step()
                watch.updated(update.phase, loss, terms)
            progress = Progress(progress.step + 1, consumed, progress.epoch_length)
            watch.stepped(progress, system)
            last = is_done(recipe, progress)
            if progress.step % recipe.evaluation.every == 0 and not last:
                metrics = evaluate(system, held_out, recipe, seat.rank, seat.world, seat.device)
                watch.evaluated(progress, metrics)
                host.report({"step": progress.step, **metrics})
            if progress.step % training.checkpoint_every == 0 and not last:
                save()
    finally:
        stream.close()

    if not finished_before:
        with _supply(recipe, split, seat, "finalise") as supply:
            system.finalise(supply)
    metrics = evaluate(system, held_out, recipe, seat.rank, seat.world, seat.device)
    if not finished_before:
        watch.evaluated(progress, metrics)
        watch.finished(progress, system)
        save()
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


def _start_or_resume(
    run: Run, recipe: BaseRecipe, split: Split, seat: Seat
) -> tuple[System, dict[str, torch.optim.Optimizer], Progress]:
    """The system with its optimisers, from the newest whole checkpoint or fresh."""
    torch.manual_seed(recipe.training.seed)
    system = build_system(recipe, run.parent_recipes())
    # Channels last halves a step on a CPU and suits tensor cores; values do not depend on it.
    system.networks.to(seat.device)
    system.networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    checkpoint = _chosen_checkpoint(run, seat)
    if checkpoint is None:
        parents = {
            role: open_run(path).final_checkpoint().networks()
            for role, path in recipe.parent_runs().items()
        }
        with _supply(recipe, split, seat, "initialise") as supply:
            system.initialise(parents, supply)
        progress = Progress(step=0, samples=0, epoch_length=len(split))
    else:
        system.networks.load_state_dict(checkpoint.networks())
        found = checkpoint.progress()
        progress = Progress(found["step"], found["samples"], len(split))
    optimizers = {name: system.optimizer(name) for name in system.phases}
    if checkpoint is not None:
        states = checkpoint.optimizers()
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(states[name])
    return system, optimizers, progress


def _chosen_checkpoint(run: Run, seat: Seat) -> checkpoints.Checkpoint | None:
    """Rank 0 verifies and chooses; the others take the same one."""
    if seat.world == 1:
        return checkpoints.newest(run.checkpoints)
    choice: list[Any] = [None, None]
    if seat.rank == 0:
        try:
            choice[0] = checkpoints.newest(run.checkpoints)
        except InputError as error:
            choice[1] = error
    dist.broadcast_object_list(choice, src=0)
    if choice[1] is not None:
        raise choice[1]
    return choice[0]


def _distributed(phase: nn.Module, seat: Seat) -> nn.Module:
    """Wrap a phase so that its gradients are averaged over the ranks."""
    if seat.world == 1:
        return phase
    phase.take_over()  # type: ignore[operator]
    return DistributedDataParallel(
        phase,
        device_ids=[seat.device] if seat.device.type == "cuda" else None,
        # Our batch norms make the buffers equal on every rank by themselves.
        broadcast_buffers=False,
        # Without this, buckets are rebuilt after the first backward pass of a process; from three
        # ranks on, a resumed run would then sum its first gradients in another order than an
        # uninterrupted one.
        find_unused_parameters=True,
    )


def _stream(
    recipe: BaseRecipe, split: Split, seat: Seat, start: int
) -> Generator[HostBatch, None, None]:
    """This rank's shares of the training stream's batches, from a position on."""
    return training_batches(
        split,
        EpochOrder(split.key_hash, recipe.training.seed, len(split)),
        batch_size=recipe.data.batch_size,
        rank=seat.rank,
        world=seat.world,
        start_position=start,
        threads=recipe.data.decode_threads,
    )


@contextmanager
def _supply(recipe: BaseRecipe, split: Split, seat: Seat, purpose: str) -> Iterator[Supply]:
    """Training batches outside the steps, from the start of the stream, with draws of their own."""
    size = recipe.data.batch_size
    with closing(_stream(recipe, split, seat, start=0)) as stream:
        yield (
            (
                to_batch(host_batch, seat.device),
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


def _save(
    run: Run,
    recipe: BaseRecipe,
    system: System,
    optimizers: dict[str, torch.optim.Optimizer],
    progress: Progress,
    world: int,
) -> None:
    checkpoints.save(
        run.checkpoints,
        progress.step,
        networks=system.networks.state_dict(),
        optimizers={name: optimizer.state_dict() for name, optimizer in optimizers.items()},
        progress={"step": progress.step, "samples": progress.samples, "world": world},
        keep=recipe.training.keep_checkpoints,
    )


def _protocol(run: Run, recipe: BaseRecipe, held_out: Split) -> dict[str, Any]:
    """How the final metrics were measured, for whoever compares or merges them."""
    checkpoint = checkpoints.newest(run.checkpoints)
    assert checkpoint is not None
    return {
        "weights": checkpoint.networks_hash(),
        "data": held_out.key_hash,
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
