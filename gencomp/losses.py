"""Losses of the global batch: the same number on every rank (see `gencomp.collectives`).

Tschannen et al., NeurIPS 2018; MMD after Tolstikhin et al., *Wasserstein Auto-Encoders*, ICLR 2018;
gradient penalty after Gulrajani et al., *Improved Training of Wasserstein GANs*, NeurIPS 2017.
All are computed in float32 or, for float64 input, in float64, whatever autocast says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gencomp.collectives import gather_columns, global_mean
from gencomp.errors import InputError

MMD_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

GradientNorm = Literal["per_pixel", "per_image"]


def rmse(x_hat_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
    """Root of the mean squared error over every element of the global batch, one scalar root.

    Its gradient is ∇MSE / (2·RMSE), and 0 where both arguments are equal everywhere.

    Raises:
        InputError: shapes differ.
    """
    return _root(global_mean(squared_errors(x_hat_BCHW, x_BCHW)))


def squared_errors(x_hat_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
    """Mean squared error of each image, [n].

    Raises:
        InputError: shapes differ.
    """
    if x_hat_BCHW.shape != x_BCHW.shape:
        raise InputError(
            f"RMSE of tensors of different shapes, {tuple(x_hat_BCHW.shape)} and "
            f"{tuple(x_BCHW.shape)}."
        )
    squares = (at_least_float32(x_hat_BCHW) - at_least_float32(x_BCHW)).square()
    return squares.flatten(1).mean(1)


def root_mean(errors_N: Tensor) -> Tensor:
    """RMSE from the squared errors of all images of the global batch."""
    return _root(errors_N.mean())


def mmd(z_BM: Tensor, prior_BM: Tensor, prior_variance: float = 1.0) -> Tensor:
    """Unbiased squared MMD between encoder outputs and prior samples of the global batch.

    Inverse multiquadric kernels k_s(a, b) = C_s / (C_s + |a − b|²) with C_s = 2·m·σ²·s, summed over
    the seven scales `MMD_SCALES`:

        Σ_s [ mean_{i≠j} k_s(z_i, z_j) + mean_{i≠j} k_s(p_i, p_j) − 2 mean_{i,j} k_s(z_i, p_j) ]

    The estimate can be negative. Every rank computes the whole of it, O(N²·m). No gradient flows to
    the prior samples.

    Args:
        z_BM: [n, m] or [n, m, 1, 1], this rank's encoder outputs.
        prior_BM: the same shape, this rank's samples of N(0, σ² I); alone, a process may hold
            another number of them.
        prior_variance: σ².

    Raises:
        InputError: fewer than two rows in the global batch, different m, or σ² not positive.
    """
    z_BM = at_least_float32(z_BM).flatten(1)
    prior_BM = prior_BM.detach().to(z_BM.dtype).flatten(1)
    z_NM, prior_NM = gather_columns(None, z_BM, prior_BM)
    return whole_mmd(z_NM, prior_NM, prior_variance)


def whole_mmd(z_NM: Tensor, prior_NM: Tensor, prior_variance: float = 1.0) -> Tensor:
    """`mmd` of rows that are those of the whole global batch already.

    Args:
        z_NM: encoder outputs.
        prior_NM: samples of N(0, σ² I).
        prior_variance: σ².

    Raises:
        InputError: as `mmd`.
    """
    if prior_variance <= 0:
        raise InputError(f"The prior variance is {prior_variance}, it must be positive.")
    if z_NM.shape[1] != prior_NM.shape[1] or min(len(z_NM), len(prior_NM)) < 2:
        raise InputError(
            "MMD needs two rows or more of equal length on both sides, got "
            f"{tuple(z_NM.shape)} and {tuple(prior_NM.shape)} in the global batch."
        )
    with torch.autocast(z_NM.device.type, enabled=False):
        q_NM = at_least_float32(z_NM)
        p_NM = prior_NM.detach().to(q_NM.dtype)
        base = 2 * q_NM.shape[1] * prior_variance
        qq = _kernel_mean(_squared_distances(q_NM, q_NM), base, drop_diagonal=True)
        pp = _kernel_mean(_squared_distances(p_NM, p_NM), base, drop_diagonal=True)
        qp = _kernel_mean(_squared_distances(q_NM, p_NM), base, drop_diagonal=False)
        return qq + pp - 2 * qp


def logistic_loss(logits_B: Tensor, positive: bool) -> Tensor:
    """Cross-entropy of logits over the global batch when all its rows are of one class.

    Args:
        logits_B: [n] this rank's logits of "positive".
        positive: the class that all rows are of.
    """
    return global_mean(logistic_losses(logits_B, positive))


def logistic_losses(logits_B: Tensor, positive: bool) -> Tensor:
    """`logistic_loss` of each row, [n]."""
    logits_B = at_least_float32(logits_B)
    return F.softplus(-logits_B if positive else logits_B)


def prior_log_density(z_BM: Tensor, prior_variance: float = 1.0) -> Tensor:
    """log N(z; 0, σ² I) = −|z|²/(2σ²) − m/2·ln(2πσ²) of every row, [n].

    Args:
        z_BM: [n, m] or [n, m, 1, 1].
        prior_variance: σ².
    """
    z_BM = at_least_float32(z_BM).flatten(1)
    constant = z_BM.shape[1] / 2 * math.log(2 * math.pi * prior_variance)
    return -z_BM.square().sum(1) / (2 * prior_variance) - constant


def gradient_penalties(
    critic: Callable[[Tensor], Tensor],
    real_BCHW: Tensor,
    fake_BCHW: Tensor,
    mix_B: Tensor,
    norm: GradientNorm = "per_pixel",
) -> Tensor:
    """(|∇_u f(u)| − 1)² of each image at u = a·real + (1 − a)·fake.

    Args:
        critic: images to one score each; images must not influence each other.
        real_BCHW, fake_BCHW: this rank's images; no gradient flows to them.
        mix_B: [n] the a of each image, U[0, 1].
        norm: `per_pixel` takes the norm over the colour channels at each pixel and averages over
            images and pixels, as the published weights of Wasserstein++ expect (an image's whole
            gradient then has a norm near 64 at 64×64 pixels). `per_image` takes the norm of an
            image's whole gradient, as Gulrajani et al. do.

    Returns:
        [n], which can be differentiated with respect to the critic's parameters.
    """
    a_B111 = mix_B[:, None, None, None]
    mixed_BCHW = (a_B111 * real_BCHW + (1 - a_B111) * fake_BCHW).detach().requires_grad_()
    with torch.enable_grad():
        scores = critic(mixed_BCHW)
        (gradient_BCHW,) = torch.autograd.grad(scores.sum(), mixed_BCHW, create_graph=True)
    axes = 1 if norm == "per_pixel" else (1, 2, 3)
    # torch's own norm sums the 12,288 squares of an image one after the other: 1e-4 off in float32.
    length = _root(at_least_float32(gradient_BCHW).square().sum(axes, keepdim=True))
    return (length - 1).square().mean((1, 2, 3))


def _squared_distances(a_NM: Tensor, b_KM: Tensor) -> Tensor:
    """|a|² + |b|² − 2 a·b, [N, K]; rounding may leave values just below 0, which C_s absorbs."""
    a_N1 = a_NM.square().sum(1, keepdim=True)
    b_1K = b_KM.square().sum(1)[None]
    return a_N1 + b_1K - 2 * a_NM @ b_KM.T


def _kernel_mean(distances_NK: Tensor, base: float, *, drop_diagonal: bool) -> Tensor:
    rows, columns = distances_NK.shape
    kernel_NK = _Kernel.apply(distances_NK, base)
    if drop_diagonal:
        return (kernel_NK.sum() - kernel_NK.diagonal().sum()) / (rows * (columns - 1))
    return kernel_NK.sum() / (rows * columns)


class _Kernel(torch.autograd.Function):
    """Σ_s C_s / (C_s + d) with C_s = s·base, and its slope −Σ_s C_s / (C_s + d)².

    By hand, since autograd would cost more than these few operations on small matrices.
    """

    @staticmethod
    def forward(ctx: Any, distances: Tensor, base: float) -> Tensor:
        total, slope = torch.zeros_like(distances), None
        if ctx.needs_input_grad[0]:
            slope = torch.zeros_like(distances)
        for scale in MMD_SCALES:
            constant = base * scale
            inverse = (distances + constant).reciprocal_()
            total.add_(inverse, alpha=constant)
            if slope is not None:
                slope.addcmul_(inverse, inverse, value=-constant)
        if slope is not None:
            ctx.save_for_backward(slope)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None


def _root(x: Tensor) -> Tensor:
    """Square root of x ≥ 0 with slope 0 at 0, where its own is infinite."""
    return x.clamp_min(torch.finfo(x.dtype).tiny).sqrt()


def at_least_float32(x: Tensor) -> Tensor:
    """`x`, or in half precision `x` in float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
