"""A run is a directory. This file knows where things lie in it; `run_entry` makes and enters it.

recipe.yaml       the resolved recipe
parents/          the recipe of each run that this one starts from: <role>.yaml
identity.json     the run's identity: recipe values, hash of the data, weights of the parents
environment.json  the code, command line, processor and software that the run was started with
checkpoints/      see cluster/checkpoints/store.py
metrics.jsonl     one row per logged step, one per evaluation
logs/             what each process did, see cluster/logs/process_log.py
lock, lock.*      the process that trains the run now, see cluster/locks.py
samples/          grids of originals, reconstructions and prior samples
tensorboard/      the same scalars and grids for TensorBoard
tracking.json     the run's id in experiment trackers and what was sent, see cluster/tracking
evaluations/      results of later evaluations
result.json       the final metrics, written last, when training is complete
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cluster import tensor_files
from cluster.checkpoints import retention, store
from cluster.checkpoints.store import LAST, Checkpoint, Choice
from gencomp import recipes
from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Codec, System
from gencomp.systems import build_system


@dataclass(frozen=True)
class Run:
    """A run directory that exists and belongs to a recipe.

    Attributes:
        path: the directory.
        checkpoint: the choice of the checkpoint that is used wherever the run's weights are asked
            for.
        writing: words such as `--codec.effort=best` that say how the run's codec writes files,
            where it is not as the recipe says.
    """

    path: Path
    checkpoint: Choice = LAST
    writing: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    def grid(self, step: int) -> Path:
        """The grid of samples of a step; names are in the order of steps."""
        return self.samples / f"step-{step:09d}.png"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def stop_request(self) -> Path:
        """A file whose existence asks the workers to write a checkpoint and leave."""
        return self.path / "stop"

    @property
    def refusal(self) -> Path:
        """The file in which workers say why they refuse; see `cluster.final_errors`."""
        return self.path / "refusal"

    def recipe(self) -> BaseRecipe:
        """The recipe of the run, with the chosen values of how its codec writes files.

        Raises:
            InputError: a chosen value is refused.
        """
        recipe = recipes.load(self.path / "recipe.yaml")
        _, values = recipes.split_overrides(self.writing)
        return recipes.rewriting(recipe, values, f"run {self.path}") if values else recipe

    def parent_recipes(self) -> dict[str, BaseRecipe]:
        """The recipe of each parent run by role, stored here so that a run can be moved alone."""
        return {
            role: recipes.load(self.path / "parents" / f"{role}.yaml")
            for role in self.recipe().parent_runs()
        }

    def system(self) -> System:
        """The system of this run, with the weights of the chosen checkpoint, on the CPU.

        Raises:
            InputError: there is no such checkpoint.
        """
        found, recipe = self.chosen_checkpoint(), self.recipe()
        system = build_system(recipe, self.parent_recipes())
        system.networks.load_state_dict(found.networks())
        load_frozen(system, recipe, found)
        return system

    def codec(self) -> Codec | None:
        """The codec of the chosen checkpoint; None for a stage that has no code."""
        return self.system().codec()

    def chosen_checkpoint(self) -> Checkpoint:
        """The chosen checkpoint, which is whole.

        Raises:
            InputError: the checkpoint is not kept or not whole, or there is none at all.
        """
        if self.checkpoint == "best":
            return self._best_checkpoint()
        if self.checkpoint != "last":
            return self._checkpoint_of(self.checkpoint)
        found = store.newest(self.checkpoints)
        if found is None:
            raise InputError(f"run {self.path} has no checkpoint yet")
        return found

    def _best_checkpoint(self) -> Checkpoint:
        recipe = self.recipe()
        if not recipe.training.keep_best:
            raise InputError(
                f"run {self.path} keeps no best checkpoints: set training.keep_best and "
                "training.keep_best_metric before training"
            )
        scores = retention.Retention(self.metrics, recipe).scores(self._steps())
        found = retention.best(self.checkpoints, scores)
        if found is None:
            raise InputError(f"run {self.path} has no whole checkpoint that was evaluated")
        return found

    def _checkpoint_of(self, step: int) -> Checkpoint:
        if step not in (kept := self._steps()):
            said = f"kept are {', '.join(map(str, kept))}" if kept else "it has none yet"
            raise InputError(f"run {self.path} keeps no checkpoint of step {step}; {said}")
        path = self.checkpoints / store.name_of(step)
        store.verify(path)
        return Checkpoint(path, averaged=True)

    def _steps(self) -> list[int]:
        """The steps of all checkpoints, in increasing order."""
        return sorted(map(store.step_of, store.directories(self.checkpoints)))

    def identity(self) -> dict[str, Any]:
        return json.loads((self.path / "identity.json").read_text(encoding="utf-8"))

    def result(self) -> dict[str, Any] | None:
        """The final metrics of a finished run; None for any other run."""
        try:
            return json.loads((self.path / "result.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def final_checkpoint(self) -> Checkpoint:
        """The chosen checkpoint of a finished run: the last one, unless another was chosen.

        Raises:
            InputError: the run is not finished, or the checkpoint is not kept or is damaged.
        """
        if self.result() is None:
            raise InputError(
                f"run {self.path} is not finished; run its `gencomp train` again to go on"
            )
        return self.chosen_checkpoint()


def load_frozen(system: System, recipe: BaseRecipe, checkpoint: Checkpoint | None) -> str | None:
    """Fill the frozen networks of a system on the CPU, from the parent runs or as the system does.

    Args:
        system: the system, which has just been built.
        recipe: the recipe of the system's run.
        checkpoint: the checkpoint whose weights the system has; None at the start of a run.

    Returns:
        The hash of the frozen networks; None if there are none.

    Raises:
        InputError: a parent run is missing or damaged, or the networks are not those that the
            weights were trained with.
    """
    if not system.frozen:
        return None
    system.load_frozen(parent_networks(recipe))
    system.frozen.eval().requires_grad_(False)
    _require_frozen(system)
    found = tensor_files.digest(system.frozen.state_dict())
    if checkpoint is not None and (expected := checkpoint.frozen_hash()) != found:
        raise InputError(
            f"the frozen networks of {checkpoint.path} have the hash {found}, but its weights were"
            f" trained beside {expected}: a parent run or a file of weights has changed since"
        )
    return found


def _require_frozen(system: System) -> None:
    """Raise `TypeError` if a phase runs a frozen network that it does not merely evaluate.

    A batch norm that went on learning would change a frozen network without being noticed.
    """
    for name, phase in system.phases.items():
        for own, network in phase.networks.items():
            shared = any(network is one for one in system.frozen.values())
            if shared and (own in phase.trains or own not in phase.evaluates):
                raise TypeError(f"phase {name} runs the frozen network {own}: name it in evaluates")


def parent_networks(recipe: BaseRecipe) -> dict[str, dict[str, Tensor]]:
    """The final weights of each parent run by role.

    Raises:
        InputError: a parent run is missing, not finished or damaged.
    """
    return {
        role: open_run(path).final_checkpoint().networks()
        for role, path in recipe.parent_runs().items()
    }


def open_run(path: str | Path, checkpoint: str | int = LAST, writing: Sequence[str] = ()) -> Run:
    """A run that exists.

    Args:
        path: the run's directory.
        checkpoint: the choice of the checkpoint, as `--checkpoint` names it. Whether the run has
            this checkpoint is not checked here.
        writing: words that say how the run's codec writes files, where it is not as the recipe
            says.

    Raises:
        InputError: the directory holds no run, or no checkpoint can have such a name.
    """
    run = Run(Path(path), store.parse_choice(str(checkpoint)), tuple(writing))
    if not (run.path / "identity.json").is_file():
        raise InputError(f"{path} is not a run directory (it has no identity.json)")
    return run
