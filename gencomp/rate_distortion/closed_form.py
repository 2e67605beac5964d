"""The exact curve of a linear decoder f(z) = W z + b with prior N(0, σ² I).

q_β is Gaussian. Let g = 2β for the squared error or g = β for the unit-variance negative
log-likelihood, let s be the singular values of σW, and r = x - b the residual. Then the covariance
of q_β, in units of σ², has the eigenvalues 1/(1 + g s²). Everything is computed in the singular
basis with log1p, since determinants would underflow.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor


class ExactCurve(NamedTuple):
    """The curve of each image at each β, float64, with log_z = -rate - β·distortion."""

    rate_IT: Tensor  # nats per image
    distortion_IT: Tensor
    log_z_IT: Tensor
    variance_IT: Tensor  # the variance of d under q_β: dD/dβ = -variance, dR/dβ = β·variance


def linear_gaussian(
    weight_NK: Tensor,
    bias_N: Tensor,
    x_IN: Tensor,
    beta_T: Tensor,
    kind: Literal["mse", "nll"] = "mse",
    prior_scale: float = 1.0,
) -> ExactCurve:
    """The R, D, log Z and Var[d] of a linear decoder.

    Args:
        weight_NK: the matrix W.
        bias_N: the vector b.
        x_IN: the images.
        beta_T: the inverse temperatures.
        kind: "mse" for d = |x - f|², "nll" for d = |x - f|²/2 + (N/2) log 2π.
        prior_scale: the standard deviation σ of the prior.
    """
    weight_NK, bias_N, x_IN, beta_T = (t.double() for t in (weight_NK, bias_N, x_IN, beta_T))
    half = 1.0 if kind == "mse" else 0.5
    constant = 0.0 if kind == "mse" else 0.5 * x_IN.shape[1] * math.log(2 * math.pi)

    basis_NK, s_K, _ = torch.linalg.svd(prior_scale * weight_NK, full_matrices=False)
    residual_IN = x_IN - bias_N
    a_I1K = (residual_IN @ basis_NK)[:, None]
    # The squared error that no z can remove.
    rest_I1 = (residual_IN - a_I1K[:, 0] @ basis_NK.T).square().sum(-1, keepdim=True)

    g_TK = 2 * half * beta_T[:, None].expand(-1, len(s_K))
    gain_TK = g_TK * s_K**2
    c_TK = 1 / (1 + gain_TK)
    mean_ITK = g_TK * s_K * c_TK * a_I1K
    error_ITK = a_I1K * c_TK  # a - s·mean

    rate_IT = 0.5 * (c_TK - 1 + mean_ITK**2 + torch.log1p(gain_TK)).sum(-1)
    distortion_IT = constant + half * (rest_I1 + (error_ITK**2 + s_K**2 * c_TK).sum(-1))
    log_z_IT = -beta_T * (constant + half * rest_I1) - 0.5 * (
        torch.log1p(gain_TK) + g_TK * a_I1K**2 * c_TK
    ).sum(-1)
    variance_IT = half**2 * (4 * s_K**2 * error_ITK**2 * c_TK + 2 * s_K**4 * c_TK**2).sum(-1)
    return ExactCurve(rate_IT, distortion_IT, log_z_IT, variance_IT)
