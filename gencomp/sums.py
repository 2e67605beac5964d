"""Sums in float64 that can be merged, over any number of workers and in any order of batches."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gencomp import collectives


@dataclass
class Sums:
    """The count, sum and sum of squares of per-sample quantities, by name."""

    values: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, x_B: Tensor) -> None:
        """Add one value for each sample."""
        x = x_B.detach().double().cpu()
        self._add(
            name, torch.stack([torch.tensor(float(x.numel())).double(), x.sum(), (x**2).sum()])
        )

    def add_global(self, name: str, x: Tensor) -> None:
        """Add one value of a batch that every rank knows; it is counted once over all ranks."""
        x = x.detach().double().cpu()
        self._add(name, torch.stack([torch.ones_like(x), x, x**2]) / collectives.world_size())

    def merge(self, other: Sums) -> None:
        for name, triple in other.values.items():
            self._add(name, triple)

    def all_reduced(self) -> Sums:
        """The sums over all ranks; every rank must hold the same names."""
        if not (names := sorted(self.values)):
            return Sums()
        table_N3 = torch.stack([self.values[name] for name in names])
        table_N3 = collectives.all_reduce_sum(table_N3.to(collectives.collective_device()))
        return Sums(dict(zip(names, table_N3.cpu(), strict=True)))

    def count(self, name: str) -> int:
        return round(self.values[name][0].item())

    def mean(self, name: str) -> float:
        count, total, _ = self.values[name].tolist()
        return total / count if count else math.nan

    def standard_error(self, name: str) -> float:
        """The standard error of the mean; nan if there are fewer than two samples."""
        count, total, squares = self.values[name].tolist()
        if count < 2:
            return math.nan
        variance = max(squares - total**2 / count, 0.0) / (count - 1)
        return math.sqrt(variance / count)

    def _add(self, name: str, triple: Tensor) -> None:
        self.values[name] = self.values.get(name, torch.zeros(3, dtype=torch.float64)) + triple
