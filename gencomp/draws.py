"""Random numbers that are a pure function of (seed, step, purpose) and the row in the global batch.

No generator here remembers what it has drawn. So a resumed run, and a run on another number of
workers, sees the same numbers for the same samples, and checkpoints hold no generator state.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Draws:
    """The random numbers that belong to one global batch.

    Every rank generates the numbers of the whole global batch on its device and keeps its own rows
    (row i of rank r is global row r + i·W), which is cheap for latents and noise.

    Attributes:
        seed: the seed of the run.
        key: the identity of the batch, such as ("train", step, phase, update) or
            ("evaluate", first row).
        batch_size: the number of rows of the global batch.
        rank, world: the rank of this process and the number of ranks.
        device: the device that makes the numbers; a CPU and a GPU give different streams.
    """

    seed: int
    key: tuple[str | int, ...]
    batch_size: int
    rank: int = 0
    world: int = 1
    device: torch.device = CPU

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """Standard normal numbers for this rank's rows, float32 [n, *shape]."""
        return torch.randn(
            self._size(shape), generator=self._generator(purpose), device=self.device
        )[self.rank :: self.world]

    def uniform(self, purpose: str, low: float, high: float, *shape: int) -> Tensor:
        """Numbers uniform on [low, high) for this rank's rows, float32 [n, *shape]."""
        unit = torch.rand(self._size(shape), generator=self._generator(purpose), device=self.device)
        return (low + (high - low) * unit)[self.rank :: self.world]

    def _size(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.batch_size, *shape)

    def _generator(self, purpose: str) -> torch.Generator:
        text = repr((self.seed, self.key, purpose)).encode()
        digest = hashlib.blake2b(text, digest_size=8).digest()
        generator = torch.Generator(device=self.device)
        generator.manual_seed(int.from_bytes(digest, "big") >> 1)
        return generator
