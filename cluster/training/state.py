"""What training changes and a checkpoint holds: weights, optimizers, moving averages, progress."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from cluster.checkpoints import mirror, store
from cluster.checkpoints.retention import Retention
from cluster.checkpoints.writer import Saver
from cluster.runs import Run, load_frozen, parent_networks
from cluster.training.ema import Averages
from cluster.training.worker_info import WorkerInfo
from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Progress, Supply, System
from gencomp.systems import build_system


@dataclass
class State:
    """A system under training.

    Attributes:
        saved: the step of the newest checkpoint, 0 before there is one.
        saver: writes the checkpoints, on rank 0.
        frozen: hash of the system's frozen networks, if it has some.
    """

    run: Run
    recipe: BaseRecipe
    worker: WorkerInfo
    system: System
    optimizers: dict[str, torch.optim.Optimizer]
    averages: Averages | None
    progress: Progress
    saved: int
    saver: Saver | None
    frozen: str | None

    def save(self) -> None:
        """Write a checkpoint, on rank 0; it may go on in a thread while the weights change.

        Raises:
            SavingError: this one or the one before could not be written.
        """
        if self.saver is not None:
            self.saver.save(
                store.Content(
                    networks=self.system.networks.state_dict(),
                    averages=None if self.averages is None else self.averages.state(),
                    optimizers={name: one.state_dict() for name, one in self.optimizers.items()},
                    progress={
                        "step": self.progress.step,
                        "samples": self.progress.samples,
                        "world": self.worker.world,
                    },
                    frozen=self.frozen,
                )
            )
        self.saved = self.progress.step

    def flush(self) -> None:
        """Wait until the checkpoints are on the disk, and copied; raises what `save` raises."""
        if self.saver is not None:
            self.saver.flush()

    def close(self) -> None:
        """Leave no thread behind, for whoever leaves by an error of its own."""
        if self.saver is not None:
            self.saver.close()

    def as_evaluated(self) -> AbstractContextManager[None]:
        """The weights that evaluations use: the moving averages, where there are some."""
        return nullcontext() if self.averages is None else self.averages.in_place()

    def settle(self) -> None:
        """After the last step: the averages become the weights."""
        if self.averages is not None:
            self.averages.install()
            self.averages = None


def start_or_resume(
    run: Run,
    recipe: BaseRecipe,
    worker: WorkerInfo,
    epoch_length: int,
    supply: Callable[[str], AbstractContextManager[Supply]],
) -> State:
    """The state of a run, from its newest whole checkpoint or fresh.

    Args:
        epoch_length: images in the training split.
        supply: training batches for what the start of a system depends on, by purpose.

    Raises:
        InputError: no checkpoint is whole, or a parent run is missing or damaged, or other frozen
            networks than those of the checkpoint.
    """
    torch.manual_seed(recipe.training.seed)
    system = build_system(recipe, run.parent_recipes())
    checkpoint = _chosen_checkpoint(run, worker)
    frozen = load_frozen(system, recipe, checkpoint)
    system.to(worker.device)
    if checkpoint is None:
        with supply("initialise") as batches:
            system.initialise(parent_networks(recipe), batches)
        progress = Progress(step=0, samples=0, epoch_length=epoch_length)
    else:
        system.networks.load_state_dict(checkpoint.networks())
        found = checkpoint.progress()
        progress = Progress(found["step"], found["samples"], epoch_length)
    optimizers = {name: system.optimizer(name) for name in system.phases}
    if checkpoint is not None:
        states = checkpoint.optimizers()
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(states[name])
    averages = _averages(system, recipe.training.ema_decay, checkpoint)
    saver = _saver(run, recipe) if worker.rank == 0 else None
    return State(
        run, recipe, worker, system, optimizers, averages, progress, progress.step, saver, frozen
    )


def _saver(run: Run, recipe: BaseRecipe) -> Saver:
    return Saver(
        run.checkpoints,
        Retention(run.metrics, recipe).kept,
        background=recipe.training.checkpoint_async,
        copies=mirror.of(run, recipe),
    )


def _averages(
    system: System, decay: float | None, checkpoint: store.Checkpoint | None
) -> Averages | None:
    """The moving averages as of a checkpoint, or new ones."""
    if decay is None:
        return None
    averages = Averages(system.networks, decay)
    if checkpoint is None:
        return averages
    saved = checkpoint.averages()
    if saved is None:  # a finished run has settled: its weights are the averages
        return None
    averages.load(saved)
    return averages


def _chosen_checkpoint(run: Run, worker: WorkerInfo) -> store.Checkpoint | None:
    """Rank 0 verifies and chooses; the others take the same one."""
    if worker.world == 1:
        return store.newest(run.checkpoints)
    choice: list[Any] = [None, None]
    if worker.rank == 0:
        try:
            choice[0] = store.newest(run.checkpoints)
        except InputError as error:
            choice[1] = error
    dist.broadcast_object_list(choice, src=0)
    if choice[1] is not None:
        raise choice[1]
    return choice[0]
