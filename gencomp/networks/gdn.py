"""Generalised divisive normalisation, GDN (Ballé, Laparra and Simoncelli, ICLR 2016).

    y_c = x_c / √(β_c + Σ_d γ_cd x_d²)       and its inverse, which multiplies instead

The parameters are the roots √(β + p) and √(γ + p) with the pedestal p = 2^-36, which makes steps
near 0 small but not zero. They have lower bounds, so that β ≥ 1e-6 and γ ≥ 0. A gradient at a bound
is passed only if a step against it leads back inside.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gencomp.losses import at_least_float32

_PEDESTAL = 2.0**-36
_LEAST_BETA = 1e-6
_START_GAMMA = 0.1


class Gdn(nn.Module):
    """The normalisation of [B, C, H, W] across channels.

    It starts with β = 1 and γ = 0.1 on the diagonal.

    Args:
        channels: the number C of channels.
        inverse: whether it multiplies by the root instead of dividing by it.

    Attributes:
        beta_root_C, gamma_root_CC: the roots of β [c] and γ [c, d].
    """

    def __init__(self, channels: int, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.beta_root_C = nn.Parameter((torch.ones(channels) + _PEDESTAL).sqrt())
        gamma_CC = _START_GAMMA * torch.eye(channels)
        self.gamma_root_CC = nn.Parameter((gamma_CC + _PEDESTAL).sqrt())

    @property
    def beta_C(self) -> Tensor:
        return _from_root(self.beta_root_C, _LEAST_BETA)

    @property
    def gamma_CC(self) -> Tensor:
        return _from_root(self.gamma_root_CC, 0.0)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        with torch.autocast(x_BCHW.device.type, enabled=False):
            x_BHWC = at_least_float32(x_BCHW).permute(0, 2, 3, 1)
            # With channels last in memory this is one product.
            powers_BHWC = F.linear(x_BHWC.square(), self.gamma_CC, self.beta_C)
            factors_BHWC = powers_BHWC.sqrt() if self.inverse else powers_BHWC.rsqrt()
            return (x_BHWC * factors_BHWC).permute(0, 3, 1, 2)


def _from_root(root: Tensor, least: float) -> Tensor:
    """The value of a parameter, which is `least` or more."""
    bounded: Tensor = _LowerBound.apply(root, (least + _PEDESTAL) ** 0.5)
    return bounded.square() - _PEDESTAL


class _LowerBound(torch.autograd.Function):
    """max(x, bound), whose gradient is passed where x is inside or a step leads back inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x >= bound)
        return x.clamp_min(bound)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return grad * (inside | (grad < 0)), None
