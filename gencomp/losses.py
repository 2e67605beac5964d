"""Losses of the global batch, which are the same number on every rank (see `gencomp.collectives`).

The losses follow Tschannen et al., NeurIPS 2018; the MMD follows Tolstikhin et al., *Wasserstein
Auto-Encoders*, ICLR 2018, and the gradient penalty Gulrajani et al., *Improved Training of
Wasserstein GANs*, NeurIPS 2017. All are computed in float32 or, for float64 input, in float64, also
under autocast.
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
    """The root of the mean squared error over all elements of the global batch, one scalar.

    Its gradient is ∇MSE / (2·RMSE), and 0 if both arguments are equal everywhere.

    Raises:
        InputError: the shapes differ.
    """
    return _root(global_mean(squared_errors(x_hat_BCHW, x_BCHW)))


def squared_errors(x_hat_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
    """The mean squared error of each image, [n].

    Raises:
        InputError: the shapes differ.
    """
    if x_hat_BCHW.shape != x_BCHW.shape:
        raise InputError(
            f"RMSE cannot compare tensors of different shapes, {tuple(x_hat_BCHW.shape)} and "
            f"{tuple(x_BCHW.shape)}."
        )
    squares = (at_least_float32(x_hat_BCHW) - at_least_float32(x_BCHW)).square()
    return squares.flatten(1).mean(1)


def root_mean(errors_N: Tensor) -> Tensor:
    """The RMSE, from the squared errors of all images of the global batch."""
    return _root(errors_N.mean())


def mmd(z_BM: Tensor, prior_BM: Tensor, prior_variance: float = 1.0) -> Tensor:
    """The unbiased squared MMD between encoder outputs and prior samples of the global batch.

    Its inverse multiquadric kernels k_s(a, b) = C_s / (C_s + |a − b|²), with C_s = 2·m·σ²·s, are
    summed over the seven scales `MMD_SCALES`:

        Σ_s [ mean_{i≠j} k_s(z_i, z_j) + mean_{i≠j} k_s(p_i, p_j) − 2 mean_{i,j} k_s(z_i, p_j) ]

    The estimate can be negative. Every rank computes the whole sum, in O(N²·m). No gradient flows
    to the prior samples.

    Args:
        z_BM: [n, m] or [n, m, 1, 1], this rank's encoder outputs.
        prior_BM: [n, m] or [n, m, 1, 1], this rank's samples of N(0, σ² I); a single process may
            hold a number of samples that differs from n.
        prior_variance: the variance σ² of the prior.

    Raises:
        InputError: the global batch has fewer than two rows, m differs, or σ² is not positive.
    """
    z_BM = at_least_float32(z_BM).flatten(1)
    prior_BM = prior_BM.detach().to(z_BM.dtype).flatten(1)
    z_NM, prior_NM = gather_columns(None, z_BM, prior_BM)
    return whole_mmd(z_NM, prior_NM, prior_variance)


def whole_mmd(z_NM: Tensor, prior_NM: Tensor, prior_variance: float = 1.0) -> Tensor:
    """The `mmd` of rows that already are those of the whole global batch.

    Args:
        z_NM: encoder outputs.
        prior_NM: samples of N(0, σ² I).
        prior_variance: the variance σ² of the prior.

    Raises:
        InputError: there are fewer than two rows, m differs, or σ² is not positive.
    """
    if prior_variance <= 0:
        raise InputError(f"The prior variance is {prior_variance}, but it must be positive.")
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
    """The cross-entropy of logits over a global batch whose rows all belong to one class.

    Args:
        logits_B: [n] this rank's logits of the positive class.
        positive: whether the rows belong to the positive class.
    """
    return global_mean(logistic_losses(logits_B, positive))


def logistic_losses(logits_B: Tensor, positive: bool) -> Tensor:
    """The `logistic_loss` of each row, [n]."""
    logits_B = at_least_float32(logits_B)
    return F.softplus(-logits_B if positive else logits_B)


def prior_log_density(z_BM: Tensor, prior_variance: float = 1.0) -> Tensor:
    """The log density log N(z; 0, σ² I) = −|z|²/(2σ²) − m/2·ln(2πσ²) of every row, [n].

    Args:
        z_BM: the latents, [n, m] or [n, m, 1, 1].
        prior_variance: the variance σ² of the prior.
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
    """The gradient penalty (|∇_u f(u)| − 1)² of each image at u = a·real + (1 − a)·fake.

    Args:
        critic: maps images to one score each; images must not influence each other.
        real_BCHW, fake_BCHW: this rank's images; no gradient flows to them.
        mix_B: [n] the a of each image, drawn from U[0, 1].
        norm: `per_pixel` takes the norm over the colour channels at each pixel and averages over
            images and pixels, as the published weights of Wasserstein++ expect (an image's whole
            gradient then has a norm near 64 at 64×64 pixels). `per_image` takes the norm of an
            image's whole gradient, as Gulrajani et al. do.

    Returns:
        [n] penalties, which can be differentiated with respect to the critic's parameters.
    """
    a_B111 = mix_B[:, None, None, None]
    mixed_BCHW = (a_B111 * real_BCHW + (1 - a_B111) * fake_BCHW).detach().requires_grad_()
    with torch.enable_grad():
        scores = critic(mixed_BCHW)
        (gradient_BCHW,) = torch.autograd.grad(scores.sum(), mixed_BCHW, create_graph=True)
    axes = 1 if norm == "per_pixel" else (1, 2, 3)
    # torch's own norm adds the 12,288 squares of an image one by one: an error of 1e-4 in float32.
    length = _root(at_least_float32(gradient_BCHW).square().sum(axes, keepdim=True))
    return (length - 1).square().mean((1, 2, 3))


def real_penalties(critic: Callable[[Tensor], Tensor], real_BCHW: Tensor) -> Tensor:
    """The squared norm |∇f(x)|² of the gradient at each real image, R1 without its factor γ/2.

    Mescheder, Geiger and Nowozin, *Which Training Methods for GANs do actually Converge?*, 2018.

    Args:
        critic: maps images to one score each; images must not influence each other.
        real_BCHW: this rank's images; no gradient flows to them.

    Returns:
        [n] penalties, which can be differentiated with respect to the critic's parameters.
    """
    x_BCHW = real_BCHW.detach().requires_grad_()
    with torch.enable_grad():
        (gradient_BCHW,) = torch.autograd.grad(critic(x_BCHW).sum(), x_BCHW, create_graph=True)
    return at_least_float32(gradient_BCHW).square().sum((1, 2, 3))


def _squared_distances(a_NM: Tensor, b_KM: Tensor) -> Tensor:
    """The distances |a|² + |b|² − 2 a·b, [N, K]; rounding may make them slightly negative.

    Adding C_s makes up for that.
    """
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
    """The kernel Σ_s C_s / (C_s + d) with C_s = s·base, and its slope −Σ_s C_s / (C_s + d)².

    The slope is written by hand, since autograd would cost more than these few operations on small
    matrices.
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
    """The square root of x ≥ 0 with slope 0 at 0, where the true slope is infinite."""
    return x.clamp_min(torch.finfo(x.dtype).tiny).sqrt()


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor `x` as it is, or in float32 if it has half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
