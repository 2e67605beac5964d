"""Differentiable collectives over the ranks that share one global batch.

One principle stands behind every loss in gencomp: *a phase's loss is the loss of the global batch,
the same number on every rank*, and every rank computes it in the same way from what the collectives
below return. The gradient that flows back to a collective is then the same on every rank too, so
its sum over the W ranks is W times that gradient, without communication. A rank's parameter
gradient is thus W times its own part of the exact gradient, and the average that
DistributedDataParallel takes over the W ranks is exactly the single-process gradient. This also
holds for losses that couple the batch (RMSE, MMD) and where ranks hold unequal shares.

Every collective waits for the slowest rank, whatever its size, so quantities that are needed at the
same time travel together (`global_means`, `gather_columns`).

Rank r of W holds rows r, r + W, r + 2W, ... of the global batch. Outside a process group every
function is the identity.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """The number of ranks that share the global batch (1 outside a process group)."""
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
        return grad * world_size()


def all_reduce_sum(x: Tensor) -> Tensor:
    """The sum of `x` over the ranks; differentiable if all ranks compute the same from it.

    Args:
        x: a tensor of any shape, the same shape on every rank.
    """
    if world_size() == 1:
        return x
    return _AllReduceSum.apply(x)


def all_gather(x: Tensor) -> Tensor:
    """The `x` of each rank, [W, *x.shape], without gradient.

    Args:
        x: a tensor of any shape, the same shape on every rank.
    """
    if world_size() == 1:
        return x.detach()[None]
    table = x.new_empty(world_size(), *x.shape)
    dist.all_gather(list(table.unbind()), x.detach().contiguous())
    return table


def global_count(count: int) -> int:
    """The sum of a local row count over the ranks; every rank must make this collective call."""
    if world_size() == 1:
        return count
    total = torch.tensor([count], dtype=torch.int64, device=collective_device())
    dist.all_reduce(total)
    return int(total.item())


def global_mean(x_B: Tensor) -> Tensor:
    """The mean of a per-sample quantity over the global batch.

    Args:
        x_B: [n] values of this rank's samples; n may differ between ranks and may be 0.

    Returns:
        A scalar, equal on every rank.
    """
    return global_means(x_B)[0]


def global_means(*quantities_B: Tensor) -> tuple[Tensor, ...]:
    """The `global_mean` of several quantities of the same samples, in one collective call."""
    if world_size() == 1:
        return tuple(x_B.mean() for x_B in quantities_B)
    # The count travels with the sums.
    local = quantities_B[0].new_full((), len(quantities_B[0]))
    *totals, count = all_reduce_sum(torch.stack([*(x_B.sum() for x_B in quantities_B), local]))
    return tuple(total / count.detach() for total in totals)


def global_mean_rows(x_BK: Tensor) -> Tensor:
    """The mean over the samples of the global batch of each of K quantities, [K].

    Args:
        x_BK: [n, K] values of this rank's samples, as in `global_mean`.
    """
    if world_size() == 1:
        return x_BK.mean(0)
    local = x_BK.new_full((1,), len(x_BK))
    totals = all_reduce_sum(torch.cat([x_BK.sum(0), local]))
    return totals[:-1] / totals[-1].detach()


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NK: Tensor, total: int) -> Tensor:
        world = world_size()
        share_NK = x_NK.new_zeros((-(-total // world), *x_NK.shape[1:]))
        share_NK[: len(x_NK)] = x_NK
        return all_gather(share_NK).transpose(0, 1).flatten(0, 1)[:total]

    @staticmethod
    def backward(ctx: Any, grad_NK: Tensor) -> tuple[Tensor, None]:
        return grad_NK[rank() :: world_size()] * world_size(), None


def gather_rows(x_NK: Tensor, total: int | None = None) -> Tensor:
    """All ranks' rows in global order; differentiable if all ranks compute the same from them.

    Args:
        x_NK: [n, ...] this rank's rows. Shares are those of a strided split: rank r of W holds
            rows r, r + W, ..., so counts differ by at most one and do not grow with the rank.
        total: the number of rows of the global batch; None counts them in an extra collective
            call.

    Returns:
        [N, ...], where N is the total.

    Raises:
        ValueError: n is not this rank's share of the total.
    """
    if world_size() == 1:
        return x_NK
    total = global_count(len(x_NK)) if total is None else total
    if len(x_NK) != len(range(rank(), total, world_size())):
        raise ValueError(f"rank {rank()} holds {len(x_NK)} rows of {total}, which is not its share")
    return _GatherRows.apply(x_NK, total)


def gather_columns(total: int | None, *columns_BK: Tensor) -> tuple[Tensor, ...]:
    """Gather several quantities of the same samples as `gather_rows` does, in one collective call.

    Args:
        total: the number of rows of the global batch, as in `gather_rows`.
        columns_BK: tensors [n] or [n, k] of the same type.
    """
    if world_size() == 1:
        return columns_BK
    flat = [x_BK[:, None] if x_BK.ndim == 1 else x_BK for x_BK in columns_BK]
    parts = gather_rows(torch.cat(flat, 1), total).split([x_BK.shape[1] for x_BK in flat], 1)
    return tuple(
        part_NK[:, 0] if x_BK.ndim == 1 else part_NK
        for part_NK, x_BK in zip(parts, columns_BK, strict=True)
    )


def collective_device() -> torch.device:
    """The device that a tensor must be on to be reduced: the GPU under NCCL, else the CPU."""
    if world_size() > 1 and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
