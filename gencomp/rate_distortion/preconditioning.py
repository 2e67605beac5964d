"""A metric is the covariance of the latents along the path, by which leapfrog steps are scaled.

With z = A y and A Aᵀ close to the covariance of q_β, the posterior of y is nearly round, and one
step size fits all directions (Neal: MCMC using Hamiltonian dynamics, 2011, section 4.1). A pilot
estimates the covariance about each image's mean, pooled over images; a measuring run keeps it
fixed.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gencomp.errors import InputError

Preconditioner = Literal["none", "diagonal", "dense"]


class Scatter(NamedTuple):
    """Sums over the latest temperatures, in which older ones fade, float64 on the CPU."""

    products: Tensor  # products about each image's weighted mean, [K, K], or their diagonal [K]
    freedom: Tensor  # the degrees of freedom of the products, a scalar
    log_beta: Tensor  # the sum of log β over temperatures above 0, a scalar
    temperatures: Tensor  # the number of these temperatures, a scalar


def begin(kind: Preconditioner, z_IMK: Tensor) -> Scatter:
    """The sums of chains at the prior, which have equal weights."""
    zero = torch.zeros((), dtype=torch.float64)
    latent_dim = z_IMK.shape[-1]
    shape = (latent_dim, latent_dim) if kind == "dense" else (latent_dim,)
    empty = Scatter(torch.zeros(shape, dtype=torch.float64), zero, zero, zero)
    weightless_IM = torch.zeros(z_IMK.shape[:2], dtype=torch.float64, device=z_IMK.device)
    # The prior has no log β, so it is left out of the mean of log β.
    return observe(empty, z_IMK, weightless_IM, 0.0, 1.0)._replace(temperatures=zero)


def observe(
    scatter: Scatter, z_IMK: Tensor, log_weight_IM: Tensor, log_beta: float, memory: float
) -> Scatter:
    """Add the chains at one temperature; all earlier sums are multiplied by ``memory``."""
    weight_IM1 = torch.softmax(log_weight_IM, -1)[..., None]
    z_IMK = z_IMK.double()
    centred_IMK = z_IMK - (weight_IM1 * z_IMK).sum(1, keepdim=True)
    # Each image has ESS - 1 degrees of freedom, since Σ W c cᵀ / (1 - Σ W²) is unbiased.
    ess_I = weight_IM1.square().sum((1, 2)).reciprocal()
    scaled_BK = (centred_IMK * (ess_I[:, None, None] * weight_IM1).sqrt()).flatten(0, 1)
    dense = scatter.products.ndim == 2
    products = scaled_BK.T @ scaled_BK if dense else scaled_BK.square().sum(0)
    return Scatter(
        memory * scatter.products + products.cpu(),
        memory * scatter.freedom + (ess_I - 1).sum().cpu(),
        memory * scatter.log_beta + log_beta,
        memory * scatter.temperatures + 1,
    )


def covariance(scatter: Scatter) -> Tensor:
    """The pooled covariance or its diagonal, shrunk so that it is positive definite."""
    covariance = scatter.products / scatter.freedom
    if covariance.ndim == 1:
        return covariance
    # The fewer the degrees of freedom, the more weight goes to the diagonal, which is more certain.
    share = len(covariance) / (len(covariance) + scatter.freedom)
    return torch.lerp(covariance, covariance.diagonal().diag(), share)


def check(metric_betas: np.ndarray, metric: np.ndarray, latent_dim: int) -> None:
    """Require a metric for latents of a given size, or an empty one.

    Raises:
        InputError: the arrays are not a metric for latents of that size.
    """
    count = len(metric_betas)
    if not count and not metric.size:
        return
    if metric.shape not in ((count, latent_dim), (count, latent_dim, latent_dim)):
        raise InputError(
            f"a metric of shape {list(metric.shape)} does not fit {count} temperatures and "
            f"latent_dim {latent_dim}."
        )
    if not (np.diff(metric_betas, prepend=0) > 0).all():
        raise InputError("a metric needs increasing, positive temperatures.")
    variances = metric if metric.ndim == 2 else np.linalg.eigvalsh(metric)
    if not (np.isfinite(metric).all() and (variances > 0).all()):
        raise InputError("a metric must be finite and positive definite.")


def factor(metric_betas: np.ndarray, metric: np.ndarray, beta: float) -> np.ndarray | None:
    """The A for which A Aᵀ is the metric at β, interpolated in log β; None for the identity."""
    if not len(metric_betas):
        return None
    knots = np.log(metric_betas)
    at = np.interp(np.log(max(beta, metric_betas[0])), knots, np.arange(len(knots)))
    left, share = int(at), at % 1
    right = min(left + 1, len(knots) - 1)
    # A mean of positive definite matrices is positive definite.
    return root((1 - share) * metric[left] + share * metric[right])


def root(covariance: np.ndarray) -> np.ndarray:
    """The A with A Aᵀ = covariance: a lower triangular matrix, or the roots of a diagonal."""
    return np.sqrt(covariance) if covariance.ndim == 1 else np.linalg.cholesky(covariance)
