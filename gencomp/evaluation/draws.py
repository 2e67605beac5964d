"""Random numbers that belong to an image alone, whatever batch it comes in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from gencomp.draws import CPU, Draws


@dataclass(frozen=True)
class ItemDraws(Draws):
    """Draws of which row i is that of a batch with item i alone.

    A reconstruction is then a function of weights, image, seed and key: how images are batched,
    or divided among processes, changes rounding at most.

    Attributes:
        items: what each row belongs to: the image's row in its split, the number of a sample.
    """

    items: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, seed: int, key: tuple[str | int, ...], items: list[int], device: torch.device = CPU
    ) -> Self:
        """Draws of one batch."""
        return cls(seed, key, len(items), device=device, items=tuple(items))

    def normal(self, purpose: str, *shape: int) -> Tensor:
        return torch.cat([alone.normal(purpose, *shape) for alone in self._alone()])

    def uniform(self, purpose: str, low: float, high: float, *shape: int) -> Tensor:
        return torch.cat([alone.uniform(purpose, low, high, *shape) for alone in self._alone()])

    def _alone(self) -> list[Draws]:
        one = Draws(self.seed, self.key, 1, device=self.device)
        return [replace(one, key=(*self.key, item)) for item in self.items]
