"""Batch normalisation over the global batch (Ioffe and Szegedy, ICML 2015)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gencomp.collectives import all_gather, all_reduce_sum, world_size
from gencomp.errors import InputError


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """A batch norm whose training statistics are those of the global batch.

    Its parameters and buffers have the names of those of `nn.BatchNorm2d`, and in one process, or
    in eval mode, it does the same. In training mode inside a process group, every rank normalises
    by the mean and variance of all ranks' rows, and moves its running statistics exactly as a
    single process would; ranks may hold unequal shares, or no rows at all. It works in any floating
    type on CPU and GPU (`nn.SyncBatchNorm` needs a GPU), with one collective call forward and one
    backward; it has no second derivative inside a process group. `batch_statistics` overrides the
    mode for a while.

    Raises:
        InputError: the global batch has a single value per channel in training mode.
    """

    # The statistics that `batch_statistics` asks for; with None the mode decides.
    _borrowed: Literal["global", "local"] | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [B, C, H, W]; the shape stays the same."""
        if self._borrowed == "local" or (self._borrowed and world_size() == 1):
            return F.batch_norm(
                input, None, None, self.weight, self.bias, training=True, eps=self.eps
            )
        if self._borrowed is None and (not self.training or world_size() == 1):
            return super().forward(input)
        self._check_input_dim(input)
        # Half-precision activations get statistics in float32, as in torch's own kernels.
        x_BCHW = input.to(torch.promote_types(input.dtype, torch.float32))
        moments = _global_moments(x_BCHW.detach())
        if self._borrowed is None:
            self._move_running_statistics(moments)
        weight_C = torch.ones_like(moments.mean_C) if self.weight is None else self.weight
        bias_C = torch.zeros_like(moments.mean_C) if self.bias is None else self.bias
        y_BCHW = _Normalise.apply(x_BCHW, weight_C, bias_C, *moments, self.eps)
        return y_BCHW.to(input.dtype)

    @torch.no_grad()
    def _move_running_statistics(self, moments: _Moments) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        # momentum None means the plain average over all batches seen, as in torch.
        factor = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        mean_C, variance_C, values = moments
        unbiased_C = variance_C * (values / (values - 1))
        self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), factor)
        self.running_var.lerp_(unbiased_C.to(self.running_var.dtype), factor)


class GlobalBatchNorm1d(GlobalBatchNorm2d):
    """The same for vectors [B, C], as `nn.BatchNorm1d` normalises them."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [B, C]; the shape stays the same."""
        return super().forward(input[:, :, None, None])[:, :, 0, 0]


@contextmanager
def batch_statistics(*networks: nn.Module, local: bool = False) -> Iterator[None]:
    """Let batch norms normalise by their batch, without moving their running statistics.

    This holds in either mode, for passes that must use a network as training does and leave no
    trace in it.

    Args:
        networks: the networks whose `GlobalBatchNorm2d` layers are meant.
        local: whether to normalise by this process's rows alone, without a collective call, also in
            a process group.
    """
    norms = [m for net in networks for m in net.modules() if isinstance(m, GlobalBatchNorm2d)]
    before = [norm._borrowed for norm in norms]
    for norm in norms:
        norm._borrowed = "local" if local else "global"
    try:
        yield
    finally:
        for norm, borrowed in zip(norms, before, strict=True):
            norm._borrowed = borrowed


class _Moments(NamedTuple):
    """The mean, the (biased) variance and the number of values per channel, [C], [C] and scalar."""

    mean_C: Tensor
    variance_C: Tensor
    values: Tensor


def _global_moments(x_BCHW: Tensor) -> _Moments:
    """The moments over the rows of all ranks.

    The ranks' own moments are combined by the parallel form of Chan, Golub and LeVeque (1983),
    Σ_r n_r [var_r + (mean_r − mean)²] / Σ_r n_r, which does not cancel like E[x²] − E[x]².
    """
    channels = x_BCHW.shape[1]
    local = x_BCHW.numel() // channels
    row = x_BCHW.new_zeros(2 * channels + 1)
    if local:
        # This is the kernel of torch's own batch norm; torch.var_mean takes four times as long.
        moments = torch.batch_norm_update_stats(x_BCHW, None, None, 0.0)
        row = torch.cat([*moments, moments[0].new_full((1,), local)])
    mean_WC, variance_WC, count_W1 = all_gather(row).split([channels, channels, 1], dim=1)
    values = count_W1.sum()
    # A rank with two values knows the answer without waiting for the device.
    if local <= 1 and values.item() <= 1:
        raise InputError(
            "Batch norm needs more than one value per channel in training mode, the global batch "
            f"holds {values.item():.0f}: use a larger batch or eval mode."
        )
    share_W1 = count_W1 / values
    mean_C = (share_W1 * mean_WC).sum(0)
    spread_WC = variance_WC.addcmul(mean_WC - mean_C, mean_WC - mean_C)
    return _Moments(mean_C, (share_W1 * spread_WC).sum(0), values)


class _Normalise(torch.autograd.Function):
    """The normalisation y = w (x − mean) / sqrt(var + eps) + b, with its gradient.

    The gradient goes through the global mean and variance too. With
    x̂ = (x − mean) / sqrt(var + eps) and sums over all ranks,
    dx = w / sqrt(var + eps) · (dy − Σ dy / N − x̂ · Σ dy x̂ / N).
    The gradients of w and b are this rank's part only, as for every other parameter.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_BCHW: Tensor,
        weight_C: Tensor,
        bias_C: Tensor,
        mean_C: Tensor,
        variance_C: Tensor,
        values: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x_BCHW, weight_C, mean_C, variance_C, values)
        ctx.eps = eps
        return F.batch_norm(x_BCHW, mean_C, variance_C, weight_C, bias_C, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BCHW: Tensor) -> tuple[Tensor | None, ...]:
        x_BCHW, weight_C, mean_C, variance_C, values = ctx.saved_tensors
        sums_2C = dy_BCHW.new_zeros(2, len(weight_C))
        if dy_BCHW.numel():  # torch's kernel crashes on an empty share
            # This rank's sums of dy x̂ and of dy; train=False takes x̂ from the given statistics.
            _, *sums = torch.ops.aten.native_batch_norm_backward(
                dy_BCHW,
                x_BCHW,
                weight_C,
                mean_C,
                variance_C,
                None,
                None,
                False,
                ctx.eps,
                [False, True, True],
            )
            sums_2C = torch.stack(sums)
        mean_dy_xhat_C, mean_dy_C = all_reduce_sum(sums_2C) / values
        inverse_C = torch.rsqrt(variance_C + ctx.eps)
        scale_C = weight_C * inverse_C
        slope_C = scale_C * inverse_C * mean_dy_xhat_C
        offset_C = slope_C * mean_C - scale_C * mean_dy_C
        # These two passes over the activations each take several times as long as all of the above.
        dx_BCHW = torch.addcmul(offset_C[:, None, None], dy_BCHW, scale_C[:, None, None])
        dx_BCHW.addcmul_(x_BCHW, slope_C[:, None, None], value=-1)
        return dx_BCHW, *sums_2C, None, None, None, None
