"""A process's place among the workers of a run."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gencomp.draws import CPU


@dataclass(frozen=True)
class WorkerInfo:
    """The rank and the device of this process, and the number of workers."""

    rank: int = 0
    world: int = 1
    device: torch.device = CPU
