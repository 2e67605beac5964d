"""Linear decoders with known curves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from torch import Tensor

from gencomp.rate_distortion import closed_form
from gencomp.rate_distortion.distortion import SquaredError
from gencomp.rate_distortion.reduction import LinearReduction
from tests.gencomp.rate_distortion.surrogate import surrogate as surrogate_decoder

Kind = Literal["mse", "nll"]


@dataclass(frozen=True)
class LinearProblem:
    weight_NK: Tensor
    bias_N: Tensor
    x_IN: Tensor

    def full(self) -> SquaredError:
        return SquaredError(lambda z: z @ self.weight_NK.T + self.bias_N, self.x_IN)

    def reduced(self, kind: Kind = "mse", copies: int = 1) -> LinearReduction:
        """Exact in K dimensions; ``copies`` repeats the images, all of them each time."""
        return LinearReduction(self.weight_NK, self.bias_N, self.x_IN.repeat(copies, 1), kind)

    def exact(
        self, betas: object, kind: Kind = "mse", prior_scale: float = 1.0
    ) -> closed_form.ExactCurve:
        beta_T = torch.as_tensor(betas, dtype=torch.float64).reshape(-1)
        return closed_form.linear_gaussian(
            self.weight_NK, self.bias_N, self.x_IN, beta_T, kind, prior_scale
        )

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
    return LinearProblem(*surrogate_decoder(latent_dim, images))


@pytest.fixture
def toy() -> LinearProblem:
    return make_toy()


@pytest.fixture
def toy_x1() -> LinearProblem:
    problem = make_toy()
    return LinearProblem(problem.weight_NK, problem.bias_N, problem.x_IN[:1])


@pytest.fixture(scope="session")
def surrogate() -> Callable[[int, int], LinearProblem]:
    return make_surrogate
