"""A process's place among the workers of a run."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gencomp.draws import CPU


@dataclass(frozen=True)
class WorkerInfo:
    """Rank, number of workers, and the device of this process."""

    rank: int = 0
    world: int = 1
    device: torch.device = CPU
