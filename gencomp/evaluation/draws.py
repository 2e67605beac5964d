"""Random numbers that belong to one image alone, whichever batch it is in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from gencomp.draws import CPU, Draws


@dataclass(frozen=True)
class ItemDraws(Draws):
    """Draws in which row i equals the draw of a batch that holds item i alone.

    A reconstruction is then a function of weights, image, seed and key: the way in which images are
    batched, or divided among processes, changes at most the rounding.

    Attributes:
        items: the item of each row: the image's row in its split, or the number of a sample.
    """

    items: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, seed: int, key: tuple[str | int, ...], items: list[int], device: torch.device = CPU
    ) -> Self:
        """The draws of one batch of items."""
        return cls(seed, key, len(items), device=device, items=tuple(items))

    def normal(self, purpose: str, *shape: int) -> Tensor:
        return torch.cat([alone.normal(purpose, *shape) for alone in self._alone()])

    def uniform(self, purpose: str, low: float, high: float, *shape: int) -> Tensor:
        return torch.cat([alone.uniform(purpose, low, high, *shape) for alone in self._alone()])

    def _alone(self) -> list[Draws]:
        one = Draws(self.seed, self.key, 1, device=self.device)
        return [replace(one, key=(*self.key, item)) for item in self.items]
