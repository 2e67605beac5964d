"""Linear decoders with known curves, reduced exactly to as few dimensions as their latent has."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from gencomp.rate_distortion import closed_form
from gencomp.rate_distortion.distortion import SquaredError


@dataclass(frozen=True)
class LinearProblem:
    weight_NK: Tensor
    bias_N: Tensor
    x_IN: Tensor

    def full(self) -> SquaredError:
        return SquaredError(lambda z: z @ self.weight_NK.T + self.bias_N, self.x_IN)

    def reduced(self, copies: int = 1) -> SquaredError:
        """The same d in K + 1 dimensions: d = |S Vᵀ z - Uᵀ r|² + |r - U Uᵀ r|², r = x - b.

        ``copies`` repeats the images, all of them each time: give each an id of its own.
        """
        basis_NK, s_K, rows_KK = torch.linalg.svd(self.weight_NK, full_matrices=False)
        residual_IN = self.x_IN - self.bias_N
        a_IK = residual_IN @ basis_NK
        rest_I1 = (residual_IN - a_IK @ basis_NK.T).norm(dim=-1, keepdim=True)
        matrix = torch.nn.functional.pad((s_K[:, None] * rows_KK).T, (0, 1))
        return SquaredError(lambda z: z @ matrix, torch.cat([a_IK, rest_I1], -1).repeat(copies, 1))

    def exact(self, betas: object, kind: str = "mse") -> closed_form.Curve:
        beta_T = torch.as_tensor(betas, dtype=torch.float64).reshape(-1)
        return closed_form.linear_gaussian(self.weight_NK, self.bias_N, self.x_IN, beta_T, kind)

    def posterior(self, beta: float) -> tuple[Tensor, Tensor]:
        """Mean [I, K] and covariance [K, K] of q_β for squared error."""
        eye = torch.eye(self.weight_NK.shape[1], dtype=torch.float64)
        covariance = torch.linalg.inv(eye + 2 * beta * self.weight_NK.T @ self.weight_NK)
        return 2 * beta * (self.x_IN - self.bias_N) @ self.weight_NK @ covariance, covariance


def make_toy() -> LinearProblem:
    """Three pixels, two latent dimensions, two images."""
    return LinearProblem(
        torch.tensor([[1, 0.5], [0, 1], [1, -1]], dtype=torch.float64),
        torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64),
        torch.tensor([[1, 2, -0.5], [-0.7, 0.3, 1.1]], dtype=torch.float64),
    )


def make_surrogate(latent_dim: int, images: int) -> LinearProblem:
    """A smooth decoder of 784 pixels that needs no data."""
    i = torch.arange(1, 785, dtype=torch.float64)
    j = torch.arange(1, latent_dim + 1, dtype=torch.float64)
    t = torch.arange(1, images + 1, dtype=torch.float64)[:, None]
    return LinearProblem(
        0.1 * torch.cos(0.37 * i[:, None] * j),
        0.2 * torch.sin(0.11 * i),
        0.5 + 0.5 * torch.sin(0.05 * i * t + 0.3 * t),
    )


@pytest.fixture
def toy() -> LinearProblem:
    return make_toy()


@pytest.fixture
def toy_x1() -> LinearProblem:
    problem = make_toy()
    return LinearProblem(problem.weight_NK, problem.bias_N, problem.x_IN[:1])


@pytest.fixture(scope="session")
def surrogate() -> object:
    return make_surrogate
