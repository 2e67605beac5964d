"""The reduced distortion is the decoder's own, in value, gradient and simulated data."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gencomp.errors import InputError
from gencomp.rate_distortion.reduction import LinearReduction
from tests.gencomp.rate_distortion.surrogate import surrogate

KINDS = ["mse", "nll"]


def by_autograd(
    weight_NK: Tensor, bias_N: Tensor, x_IN: Tensor, kind: str, z_IMK: Tensor
) -> tuple[Tensor, Tensor]:
    z = z_IMK.clone().requires_grad_()
    square_IM = (x_IN[:, None] - z @ weight_NK.T - bias_N).square().sum(-1)
    d_IM = square_IM if kind == "mse" else square_IM / 2 + len(bias_N) / 2 * math.log(2 * math.pi)
    return d_IM.detach(), torch.autograd.grad(d_IM.sum(), z)[0]


def test_surrogate_check_sums():
    weight_NK, bias_N, x_IN = surrogate(10, 16)
    assert weight_NK.shape == (784, 10) and bias_N.shape == (784,) and x_IN.shape == (16, 784)
    assert x_IN.sum().item() == pytest.approx(6286.615410461, abs=1e-9)
    assert weight_NK.sum().item() == pytest.approx(-0.282801177360, abs=1e-12)
    expected = [0.09323273, 0.07384686, 0.04446615]
    assert weight_NK[0, :3].tolist() == pytest.approx(expected, abs=5e-9)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    values=st.integers(1, 12),
    latent_dim=st.integers(1, 12),
    kind=st.sampled_from(KINDS),
)
def test_equals_the_decoder(seed, values, latent_dim, kind):
    """It does so with more latents than values and with a direction that the decoder ignores."""
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    weight_NK, bias_N, x_IN = normal(values, latent_dim), normal(values), normal(3, values)
    weight_NK[:, 0] *= seed % 2
    z_IMK = normal(3, 4, latent_dim)
    d_IM, grad_IMK = by_autograd(weight_NK, bias_N, x_IN, kind, z_IMK)

    reduced = LinearReduction(weight_NK, bias_N, x_IN, kind)
    value, grad = reduced.value_and_grad(z_IMK)
    torch.testing.assert_close(value, d_IM, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(grad, grad_IMK, rtol=1e-11, atol=1e-11)
    assert torch.equal(reduced.grad(z_IMK), grad)
    assert torch.equal(reduced.grad(z_IMK, low_precision=True), grad)


@pytest.mark.parametrize("kind", KINDS)
def test_of_other_images(kind):
    weight_NK, bias_N, x_IN = surrogate(10, 8)
    z_IMK = torch.randn(3, 5, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    other = LinearReduction(weight_NK, bias_N, x_IN, kind).of(x_IN[5:])
    d_IM, grad_IMK = by_autograd(weight_NK, bias_N, x_IN[5:], kind, z_IMK)
    torch.testing.assert_close(other.value_and_grad(z_IMK), (d_IM, grad_IMK))
    assert other.name == ("squared_error" if kind == "mse" else "gaussian_likelihood")


@pytest.mark.parametrize("kind", KINDS)
def test_simulated_images_follow_the_distortion(kind):
    """E d = N/2β above its least value for x ~ exp(-β d); a mean at 4 standard errors (6e-5)."""
    weight_NK, bias_N, x_IN = surrogate(4, 1)
    generator = torch.Generator().manual_seed(2)
    z_IK = torch.randn(200, 4, generator=generator, dtype=torch.float64)
    normals_IN = torch.randn(200, 784, generator=generator, dtype=torch.float64)
    beta = 3.0
    reduced = LinearReduction(weight_NK, bias_N, x_IN, kind)
    x_simulated_IN = reduced.simulate(z_IK, beta, normals_IN)
    d_IM, _ = reduced.of(x_simulated_IN).value_and_grad(z_IK[:, None])
    least = 0 if kind == "mse" else 392 * math.log(2 * math.pi)
    spread = math.sqrt(392) / beta / math.sqrt(200)
    assert abs(d_IM.mean().item() - least - 392 / beta) < 4 * spread
    assert torch.equal(reduced.simulate(z_IK, beta, 0 * normals_IN), z_IK @ weight_NK.T + bias_N)


def test_refusals():
    weight_NK, bias_N, x_IN = surrogate(4, 2)
    with pytest.raises(InputError, match="must be \\[N, K\\], \\[N\\] and \\[I, N\\]"):
        LinearReduction(weight_NK, bias_N[1:], x_IN, "mse")
    with pytest.raises(InputError, match="must be \\[N, K\\]"):
        LinearReduction(weight_NK, bias_N, x_IN[:, 1:], "mse")
    with pytest.raises(InputError, match='"mse" or "nll"'):
        LinearReduction(weight_NK, bias_N, x_IN, "features")  # type: ignore[arg-type]
