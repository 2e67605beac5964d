"""The state that training changes and a checkpoint holds, such as weights and optimizers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from cluster.checkpoints import mirror, store
from cluster.checkpoints.retention import Retention
from cluster.checkpoints.writer import Saver
from cluster.runs import Run, load_frozen, parent_networks
from cluster.training import messages
from cluster.training.ema import Averages
from cluster.training.worker_info import WorkerInfo
from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe, TrainingSection
from gencomp.system import Progress, Supply, System
from gencomp.systems import build_system


@dataclass
class State:
    """A system under training.

    Attributes:
        saved: the step of the newest checkpoint, 0 before there is one.
        saver: the object that writes the checkpoints, on rank 0 only.
        frozen: the hash of the system's frozen networks, if it has any.
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
        """Write a checkpoint on rank 0; a thread may still write it while the weights change.

        Raises:
            SavingError: this checkpoint or the one before could not be written.
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
        """Wait until the checkpoints are on the disk and copied; raises the errors of `save`."""
        if self.saver is not None:
            self.saver.flush()

    def close(self) -> None:
        """End all threads. Unlike `flush`, this raises no error of theirs."""
        if self.saver is not None:
            self.saver.close()

    def as_evaluated(self) -> AbstractContextManager[None]:
        """Put the weights for evaluations, the averages if there are any, in place for a body."""
        return nullcontext() if self.averages is None else self.averages.in_place()

    def settle(self) -> None:
        """Replace the weights by the averages, after the last step."""
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
    """The state of a run, from its newest whole checkpoint or at its start.

    Args:
        epoch_length: the number of images in the training split.
        supply: a function that gives training batches for a purpose, such as the initialisation of
            a system.

    Raises:
        InputError: no checkpoint is whole, a parent run is missing or damaged, or the frozen
            networks are not those of the checkpoint.
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
    averages = _averages(system, recipe.training, checkpoint)
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
    system: System, training: TrainingSection, checkpoint: store.Checkpoint | None
) -> Averages | None:
    """The moving averages of a checkpoint, or new ones."""
    if training.ema_decay is None:
        return None
    averages = Averages(system.networks, training.ema_decay, training.ema_warm_up)
    if checkpoint is None:
        return averages
    saved = checkpoint.averages()
    if saved is None:  # the weights of a finished run are its averages already
        return None
    averages.load(saved)
    return averages


def _chosen_checkpoint(run: Run, worker: WorkerInfo) -> store.Checkpoint | None:
    """The newest whole checkpoint; rank 0 verifies and chooses it, and the others take the same."""
    chosen, refusal = None, None
    if worker.rank == 0:
        try:
            chosen = store.newest(run.checkpoints)
        except InputError as error:
            refusal = error
    mine = {"step": chosen and chosen.step, "refusal": refusal and str(refusal)}
    told = messages.from_first(mine, worker)
    if told["refusal"] is not None:
        raise refusal or InputError(told["refusal"])
    if told["step"] is None:
        return None
    return store.Checkpoint(run.checkpoints / store.name_of(int(told["step"])))
