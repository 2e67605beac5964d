from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gencomp.errors import InputError
from gencomp.evaluation import networks
from gencomp.rate_distortion import closed_form
from gencomp.rate_distortion.distortion import FeatureError, GaussianLikelihood, SquaredError
from gencomp.rate_distortion.pullback import Forces
from gencomp.rate_distortion.units import nats_to_bpp

LOG_VARIANCE = torch.linspace(-3, 1, 12).double()


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 12), nn.Unflatten(1, (3, 2, 2)))


def features() -> nn.Module:
    """A network from images of 3×2×2 to 5 features."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 5, 2), nn.ReLU())


def all_kinds(decode: nn.Module, x: Tensor, forces: Forces = "float32") -> list:
    return [
        SquaredError(decode, x, forces),
        GaussianLikelihood(decode, x, 0.3, forces),
        GaussianLikelihood(decode, x, LOG_VARIANCE, forces),
        FeatureError(decode, x, features().to(x.dtype).eval(), forces),
    ]


def by_definition(kind: int, decode: nn.Module, x: Tensor, z: Tensor) -> Tensor:
    f = decode(z.flatten(0, 1)).view(*z.shape[:2], *x.shape[1:])
    error = (f - x[:, None]).flatten(2)
    if kind == 0:
        return error.square().sum(-1)
    if kind == 3:
        network = features().to(x.dtype)
        f_features = network(f.flatten(0, 1)).view(*z.shape[:2], -1)
        return (f_features - network(x).view(len(x), 1, -1)).square().sum(-1)
    log_variance = torch.full_like(LOG_VARIANCE, 0.3) if kind == 1 else LOG_VARIANCE
    normal = torch.distributions.Normal(torch.zeros(12).double(), (log_variance / 2).exp())
    return -normal.log_prob(error).sum(-1)


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("by_hand", [True, False])
def test_value_and_gradient_by_definition(kind, by_hand):
    decode = mlp().double().eval()
    x, z = torch.rand(2, 3, 2, 2).double(), torch.randn(2, 5, 4).double()
    distortion = all_kinds(decode if by_hand else lambda z: decode(z), x)[kind]
    d, grad = distortion.value_and_grad(z)
    torch.testing.assert_close(distortion.grad(z), grad, rtol=0, atol=0)
    z.requires_grad_()
    expected = by_definition(kind, decode, x, z)
    (expected_grad,) = torch.autograd.grad(expected.sum(), z)
    torch.testing.assert_close(d, expected.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", range(4))
def test_of_other_images(kind):
    decode = mlp().eval()
    x, other, z = torch.rand(2, 3, 2, 2), torch.rand(4, 3, 2, 2), torch.randn(4, 5, 4)
    moved = all_kinds(decode, x)[kind].of(other.flatten(1))
    expected = all_kinds(decode, other)[kind]
    assert type(moved) is type(expected) and moved.name == expected.name
    for a, b in zip(moved.value_and_grad(z), expected.value_and_grad(z), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("by_hand", [True, False])
def test_forces_in_bfloat16(kind, by_hand):
    decode = mlp().eval()
    x, z = torch.rand(2, 3, 2, 2), torch.randn(2, 50, 4)
    distortion = all_kinds(decode if by_hand else lambda z: decode(z), x, "bfloat16")[kind]
    grad, low = distortion.grad(z), distortion.grad(z, low_precision=True)
    torch.testing.assert_close(distortion.value_and_grad(z)[1], grad, rtol=0, atol=0)
    assert low.dtype == torch.float32
    assert 1e-4 < (low - grad).norm() / grad.norm() < 2e-2


def test_works_where_gradients_are_switched_off_and_leaves_none():
    decode = mlp().eval()
    for distortion in all_kinds(decode, torch.rand(2, 3, 2, 2)):
        with torch.no_grad():
            d, grad = distortion.value_and_grad(torch.randn(2, 5, 4))
        assert d.dtype == torch.float64 and grad.dtype == torch.float32
        assert not d.requires_grad and not grad.requires_grad
    assert all(p.grad is None for p in decode.parameters())


def test_sum_is_float64():
    x = torch.full((1, 1_000_001), 1e-4)
    x[0, 0] = 1e3
    d, _ = SquaredError(lambda z: z[:, :1] * torch.zeros(x.shape[1]), x).value_and_grad(
        torch.zeros(1, 1, 2)
    )
    assert d.item() == pytest.approx(1e6 + 0.01, abs=1e-6)  # float32 would stop at 1e6


# The toy decoder through likelihoods and linear features is a linear decoder again: with pixels or
# features as rows of A, d = c + |A(x - b - W z)|² or half of it.
MIX = torch.tensor([[1.0, 0.4, 0], [0, 1.5, -0.3], [0.2, 0, 0.8], [1, 1, 1]]).double()
TOY_LOG_VARIANCE = torch.tensor([0.5, -1.0, 0.2]).double()


def linear_cases(problem) -> dict:
    decode, x = problem.full().decode, problem.x_IN
    whiten = torch.diag((-TOY_LOG_VARIANCE / 2).exp())
    return {
        "scalar": (GaussianLikelihood(decode, x, -0.4), math.exp(0.2) * torch.eye(3).double()),
        "vector": (GaussianLikelihood(decode, x, TOY_LOG_VARIANCE), whiten),
        "features": (FeatureError(decode, x, lambda x: x @ MIX.T), MIX),
    }


@pytest.mark.parametrize("case", ["scalar", "vector", "features"])
@pytest.mark.parametrize("beta", [0.3, 3.0])
def test_derivatives_of_log_z_on_a_linear_decoder(toy_x1, case, beta):
    """-d log Z/dβ = E[d] and -dD/dβ = Var[d], from exact samples of q_β.

    And E[z ∇U] = K for the gradient (Stein). Four comparisons at 4.5 standard errors in each of 6
    cases: one error in 6,000 seeds.
    """
    distortion, matrix = linear_cases(toy_x1)[case]
    kind = "mse" if case == "features" else "nll"
    weight, bias, x = matrix @ toy_x1.weight_NK, matrix @ toy_x1.bias_N, toy_x1.x_IN @ matrix.T
    exact = closed_form.linear_gaussian(
        weight, bias, x, torch.tensor([beta, 1.02 * beta]).double(), kind
    )
    log_variances = {"scalar": -1.2, "vector": TOY_LOG_VARIANCE.sum().item(), "features": 0.0}
    constant = 0.5 * log_variances[case]

    g = 2 * beta if kind == "mse" else beta
    covariance = torch.linalg.inv(torch.eye(2).double() + g * weight.T @ weight)
    mean = g * covariance @ weight.T @ (x[0] - bias)
    generator = torch.Generator().manual_seed(11)
    normals = torch.randn(1, 200_000, 2, dtype=torch.float64, generator=generator)
    d, grad = distortion.value_and_grad(mean + normals @ torch.linalg.cholesky(covariance).T)
    excess = d[0] - (exact.distortion_IT[0, 0] + constant)

    assert abs(excess.mean()) < 4.5 * excess.std() / len(excess) ** 0.5
    square = excess**2
    assert abs(square.mean() - exact.variance_IT[0, 0]) < 4.5 * square.std() / len(excess) ** 0.5
    step = 0.02 * beta
    ratio = (-step * d[0] - (exact.log_z_IT[0, 1] - exact.log_z_IT[0, 0] - step * constant)).exp()
    assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / len(excess) ** 0.5
    z = mean + normals[0] @ torch.linalg.cholesky(covariance).T
    stein = (z * (z + beta * grad[0])).sum(-1)
    assert abs(stein.mean() - 2) < 4.5 * stein.std() / len(excess) ** 0.5


@pytest.mark.parametrize("case", ["squared_error", "scalar", "vector"])
def test_simulated_images_make_the_latent_a_sample_of_the_posterior(toy, case):
    """It is z - m(x) ~ N(0, C) for x simulated from z; 5 entries, 4.5 standard errors each."""
    beta, count = 0.7, 100_000
    if case == "squared_error":
        distortion, matrix, g = toy.full(), torch.eye(3).double(), 2 * beta
    else:
        (distortion, matrix), g = linear_cases(toy)[case], beta
    generator = torch.Generator().manual_seed(12)
    z = torch.randn(count, 2, dtype=torch.float64, generator=generator)
    normals = torch.randn(count, 3, dtype=torch.float64, generator=generator)
    x = distortion.simulate(z, beta, normals)
    assert x.shape == (count, 3) and x.dtype == torch.float64
    weight = matrix @ toy.weight_NK
    covariance = torch.linalg.inv(torch.eye(2).double() + g * weight.T @ weight)
    error = z - g * (x - toy.bias_N) @ matrix.T @ weight @ covariance
    assert (error.mean(0).abs() < 4.5 * error.std(0) / count**0.5).all()
    products = error[:, :, None] * error[:, None]
    assert ((products.mean(0) - covariance).abs() < 4.5 * products.std(0) / count**0.5).all()
    # d and the noise speak of the same density: d(x, f(z)) = c + n/2β in the mean
    d = distortion.of(x).value_and_grad(z[:, None])[0][:, 0]
    floor = distortion.of(distortion.simulate(z, beta, 0 * normals)).value_and_grad(z[:, None])[0]
    excess = d - floor[:, 0] - 1.5 / beta
    assert abs(excess.mean()) < 4.5 * excess.std() / count**0.5


def test_features_of_a_torchscript_file(tmp_path):
    path, x, z = tmp_path / "features.pt", torch.rand(2, 3, 2, 2), torch.randn(2, 5, 4)
    torch.jit.trace(features().eval(), x).save(str(path))
    network = networks.load(path, torch.device("cpu"))
    of_file = FeatureError(mlp().eval(), x, network)
    of_module = FeatureError(mlp().eval(), x, features().eval())
    first = of_file.value_and_grad(z)
    for a, b in zip(first, of_module.value_and_grad(z), strict=True):
        torch.testing.assert_close(a, b)
    for _ in range(4):
        for a, b in zip(of_file.value_and_grad(z), first, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_bad_images_or_decoder():
    with pytest.raises(InputError, match="uint8"):
        SquaredError(mlp().eval(), torch.zeros(2, 12, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"the decoder is in training mode; call \.eval\(\)"):
        SquaredError(mlp().train(), torch.zeros(2, 12))
    with pytest.raises(InputError, match=r"the decoder .* must give 10 rows of 13 values"):
        SquaredError(mlp().eval(), torch.zeros(2, 13)).grad(torch.zeros(2, 5, 4))
    with pytest.raises(InputError, match="forces are 'float16'; they can be float32, tf32"):
        SquaredError(mlp().eval(), torch.zeros(2, 12), "float16")


def test_bad_variance():
    with pytest.raises(InputError, match="12 values need one finite element or 12"):
        GaussianLikelihood(mlp().eval(), torch.zeros(2, 12), torch.zeros(3))
    with pytest.raises(InputError, match="finite"):
        GaussianLikelihood(mlp().eval(), torch.zeros(2, 12), float("-inf"))


def test_bad_features():
    x = torch.rand(2, 3, 2, 2)
    with pytest.raises(InputError, match="the feature network is in training mode"):
        FeatureError(mlp().eval(), x, features())
    with pytest.raises(InputError, match="must give finite values"):
        FeatureError(mlp().eval(), x, lambda x: x / 0)
    with pytest.raises(InputError, match="one row an image"):
        FeatureError(mlp().eval(), x, lambda x: x.sum())


def test_what_cannot_be_simulated():
    x, z = torch.rand(2, 3, 2, 2), torch.zeros(2, 4)
    with pytest.raises(InputError, match="cannot be drawn exactly"):
        FeatureError(mlp().eval(), x, features().eval()).simulate(z, 1.0, torch.zeros(2, 12))
    with pytest.raises(InputError, match="positive, finite beta, not 0"):
        SquaredError(mlp().eval(), x).simulate(z, 0.0, torch.zeros(2, 12))


def test_nats_to_bpp():
    assert nats_to_bpp(64 * 64 * 0.6931471805599453, 64 * 64) == pytest.approx(1.0)
    assert nats_to_bpp(torch.tensor([0.0, 6.931471805599453]), 10).tolist() == pytest.approx([0, 1])
