"""The distortion of a linear decoder, computed in as many dimensions as its latent has.

With f(z) = W z + b and r = x - b, |x - f(z)|² depends on z through WᵀW and Wᵀr alone. From W = Q R
it follows that

    |x - f(z)|² = |R z - Qᵀr|² + |r - Q Qᵀr|²,    ∇ = 2 (WᵀW z - Wᵀr)

An evaluation costs K² instead of N·K operations and needs no autograd, so long annealed runs can be
compared with the closed form (``closed_form``) in seconds.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from gencomp.errors import InputError


class LinearReduction:
    """The distortion of a linear decoder f(z) = W z + b, reduced to the dimensions of z.

    It is d = |x - f(z)|² ("mse") or d = |x - f(z)|²/2 + (N/2) log 2π ("nll"). Values and gradients
    are float64 and exact up to rounding.

    Attributes:
        name: "squared_error" or "gaussian_likelihood", the distortion that is reduced.
        x_IN: the images, float64.

    Raises:
        InputError: the shapes do not fit, or the kind is unknown.
    """

    def __init__(
        self, weight_NK: Tensor, bias_N: Tensor, x_IN: Tensor, kind: Literal["mse", "nll"]
    ) -> None:
        if kind not in ("mse", "nll"):
            raise InputError(f'the kind of a linear reduction is "mse" or "nll", not {kind!r}.')
        values = len(weight_NK)
        if weight_NK.ndim != 2 or bias_N.shape != (values,) or x_IN.shape[1:] != (values,):
            raise InputError(
                f"weight {list(weight_NK.shape)}, bias {list(bias_N.shape)} and images "
                f"{list(x_IN.shape)} do not fit; they must be [N, K], [N] and [I, N]."
            )
        self.weight_NK, self.bias_N, self.x_IN = (
            t.detach().double() for t in (weight_NK, bias_N, x_IN)
        )
        self.kind = kind
        self.name = "squared_error" if kind == "mse" else "gaussian_likelihood"
        self._half, self._constant = (
            (1.0, 0.0) if kind == "mse" else (0.5, 0.5 * values * math.log(2 * math.pi))
        )
        basis_NK, self._root_KK = torch.linalg.qr(self.weight_NK)
        residual_IN = self.x_IN - self.bias_N
        self._a_I1K = (residual_IN @ basis_NK)[:, None]
        # The part of the residual that no z can remove.
        rest_IN = residual_IN - self._a_I1K[:, 0] @ basis_NK.T
        self._rest_I1 = rest_IN.square().sum(-1, keepdim=True)
        self._hessian_KK = 2 * self._half * self.weight_NK.T @ self.weight_NK
        self._pull_I1K = 2 * self._half * (residual_IN @ self.weight_NK)[:, None]

    def value_and_grad(self, z_IMK: Tensor) -> tuple[Tensor, Tensor]:
        error_IMK = z_IMK @ self._root_KK.T - self._a_I1K
        d_IM = self._half * (error_IMK.square().sum(-1) + self._rest_I1) + self._constant
        return d_IM, self.grad(z_IMK)

    def grad(self, z_IMK: Tensor, low_precision: bool = False) -> Tensor:
        """The gradient alone, always in float64."""
        return z_IMK @ self._hessian_KK - self._pull_I1K

    def of(self, x_IN: Tensor) -> LinearReduction:
        """The same decoder and kind for other images."""
        return LinearReduction(self.weight_NK, self.bias_N, x_IN, self.kind)

    def simulate(self, z_IK: Tensor, beta: float, normals_IN: Tensor) -> Tensor:
        """Images x ~ exp(-β d(x, f(z))), normalised over x.

        They are f(z) plus noise of variance 1/2β ("mse") or 1/β ("nll").
        """
        mean_IN = z_IK.double() @ self.weight_NK.T + self.bias_N
        return mean_IN + normals_IN / math.sqrt(2 * self._half * beta)
