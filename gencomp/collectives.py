"""Differentiable collectives over the ranks that share one global batch.

The principle behind every loss in gencomp: *a phase's loss is the loss of the global batch, the
same number on every rank*. The collectives below sum incoming gradients over the ranks in their
backward pass, so a rank's parameter gradient is W times its own part of the exact one, and the
average that DistributedDataParallel takes over the W ranks is exactly the single-process gradient.
This holds for losses that couple the batch (RMSE, MMD, batch norm) and when ranks hold unequal
shares.

Rank r of W holds rows r, r + W, r + 2W, ... of the global batch. Outside a process group every
function is the identity.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of ranks that share the global batch (1 outside a process group)."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's rank (0 outside a process group)."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _AllReduceSum.apply(grad)


def all_reduce_sum(x: Tensor) -> Tensor:
    """Sum of `x` over the ranks, differentiable (also twice).

    Args:
        x: any shape, the same on every rank.
    """
    if world_size() == 1:
        return x
    return _AllReduceSum.apply(x)


def global_count(count: int) -> int:
    """Sum of a local row count over the ranks; a collective call on every rank."""
    if world_size() == 1:
        return count
    total = torch.tensor([count], dtype=torch.int64, device=collective_device())
    dist.all_reduce(total)
    return int(total.item())


def global_mean(x_B: Tensor) -> Tensor:
    """Mean over the global batch of a per-sample quantity.

    Args:
        x_B: [n] values of this rank's samples; n may differ between ranks and may be 0.

    Returns:
        Scalar, equal on every rank.
    """
    if world_size() == 1:
        return x_B.mean()
    # One collective for both: the count travels with the sum.
    packed = torch.stack([x_B.sum(), x_B.new_tensor(float(x_B.shape[0]))])
    total, count = all_reduce_sum(packed)
    return total / count.detach()


def gather_rows(x_NK: Tensor) -> Tensor:
    """All ranks' rows in the order of the global batch, differentiable.

    Args:
        x_NK: [n, ...] this rank's rows. Shares are those of a strided split: rank r of W holds
            rows r, r + W, ... so counts differ by at most one and do not grow with the rank.

    Returns:
        [N, ...] with N the sum of all n.
    """
    world = world_size()
    if world == 1:
        return x_NK
    total = global_count(x_NK.shape[0])
    most = -(-total // world)
    padded = x_NK.new_zeros((most, world, *x_NK.shape[1:]))
    # Each rank fills its own column; summing the columns gathers, and keeps the backward pass a
    # sum.
    column = torch.zeros_like(padded[:, 0])
    column = torch.cat([x_NK, column[x_NK.shape[0] :]])
    padded = padded.index_copy(1, torch.tensor([rank()], device=x_NK.device), column.unsqueeze(1))
    return all_reduce_sum(padded).flatten(0, 1)[:total]


def collective_device() -> torch.device:
    """Where a tensor must lie to be reduced: the GPU under NCCL, else the CPU."""
    if world_size() > 1 and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
