"""Small messages between the workers of a run, as JSON.

The object collectives of torch unpickle what they receive: whoever got into a process group could
run code in all of its processes.
"""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cluster.training.worker_info import WorkerInfo
from gencomp.collectives import all_gather, collective_device


def gather(message: Any, worker: WorkerInfo) -> list[Any]:
    """The messages of all ranks, by rank. Every rank must make this collective call."""
    if worker.world == 1:
        return [message]
    mine = _encoded(message)
    sizes = all_gather(torch.tensor(len(mine), device=mine.device)).tolist()
    padded = mine.new_zeros(max(sizes))
    padded[: len(mine)] = mine
    table = all_gather(padded)
    return [_decoded(row[:size]) for row, size in zip(table, sizes, strict=True)]


def from_first(message: Any, worker: WorkerInfo) -> Any:
    """The message of rank 0, on every rank. Every rank must make this collective call."""
    if worker.world == 1:
        return message
    mine = _encoded(message)
    size = torch.tensor(len(mine), device=mine.device)
    dist.broadcast(size, src=0)
    content = mine if worker.rank == 0 else mine.new_empty(int(size.item()))
    dist.broadcast(content, src=0)
    return _decoded(content)


def _encoded(message: Any) -> Tensor:
    text = bytearray(json.dumps(message), "ascii")
    return torch.frombuffer(text, dtype=torch.uint8).to(collective_device())


def _decoded(content: Tensor) -> Any:
    return json.loads(bytes(content.tolist()))
