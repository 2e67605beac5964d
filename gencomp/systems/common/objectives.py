"""Phases that each have an optimizer, and make the updates of a step in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gencomp.recipes.schema import OptimizerSection
from gencomp.system import Phase, Progress, Supply, System, Update


class Objective(NamedTuple):
    """A phase with the settings of its optimizer.

    Attributes:
        phase: the phase.
        optimizer: the settings of its Adam.
        repeats: the number of updates in a step, each on a fresh batch if there are several.
    """

    phase: Phase
    optimizer: OptimizerSection
    repeats: int = 1


class SystemOfObjectives(System):
    """A system whose step makes the updates of each objective in turn, with an Adam for each.

    The first update of a step and every repeated one take a fresh batch; other updates reuse the
    last batch.
    """

    def __init__(self, nets: Mapping[str, nn.Module], objectives: Mapping[str, Objective]) -> None:
        self.networks = nn.ModuleDict(nets)
        self.phases = {name: objective.phase for name, objective in objectives.items()}
        self._objectives = objectives

    def updates(self, progress: Progress) -> Sequence[Update]:
        found: list[Update] = []
        for name, objective in self._objectives.items():
            for _ in range(objective.repeats):
                found.append(Update(name, fresh_batch=objective.repeats > 1 or not found))
        return found

    def optimizer(self, phase: str) -> torch.optim.Optimizer:
        settings = self._objectives[phase].optimizer
        return torch.optim.Adam(
            self.phases[phase].trained_parameters(),
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )

    def learning_rates(self, phase: str, progress: Progress) -> Sequence[float]:
        return (self._objectives[phase].optimizer.rate_at(progress.epoch),)

    def initialise(self, parents: Mapping[str, Mapping[str, Tensor]], supply: Supply) -> None:
        """Leave the networks as they were made."""
