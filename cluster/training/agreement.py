"""What the workers of a run must agree on: the same data, and when to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from cluster.training import messages
from cluster.training.worker_info import WorkerInfo
from gencomp.errors import InputError


def require_same_data(hashes: list[str], worker: WorkerInfo) -> None:
    """Raise `InputError` on every rank if the ranks do not see the same images."""
    if worker.world == 1:
        return
    seen = messages.gather([socket.gethostname(), hashes], worker)
    for rank, (host, found) in enumerate(seen):
        if found != seen[0][1]:
            raise InputError(
                f"the workers see different data: rank 0 on {seen[0][0]} has the index"
                f" {seen[0][1][0][:16]}, rank {rank} on {host} has {found[0][:16]};"
                " every node must see the same shard set (copy it again, or use shared storage)"
            )


def control_group(worker: WorkerInfo) -> Any:
    """A process group for messages on the CPU, so that a request to stop never waits for a GPU."""
    if worker.world == 1 or dist.get_backend() == "gloo":
        return None
    return dist.new_group(backend="gloo")


def agree(should_stop: Callable[[], bool], worker: WorkerInfo, control: Any) -> bool:
    """The answer of rank 0, known to every rank."""
    if worker.world == 1:
        return should_stop()
    answer = torch.tensor([worker.rank == 0 and should_stop()], dtype=torch.uint8)
    dist.broadcast(answer, src=0, group=control)
    return bool(answer.item())
