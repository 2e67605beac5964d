"""RMSE, MMD and gradient penalty against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.stats import chi2
from torch import Tensor

from gencomp.errors import InputError
from gencomp.losses import (
    MMD_SCALES,
    gradient_penalties,
    logistic_loss,
    mmd,
    prior_log_density,
    rmse,
)

F64 = torch.float64


def rows(*values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=F64)


def unit(norm: float, index: int, m: int = 128) -> Tensor:
    v = torch.zeros(m, dtype=F64)
    v[index] = norm
    return v


@pytest.mark.parametrize("n", [2, 3, 17])
def test_mmd_of_two_point_masses(n: int) -> None:
    p = torch.zeros(n, 128, dtype=F64)
    q = unit(16, 3).expand(n, -1)
    assert float(mmd(q, p)) == pytest.approx(7, rel=1e-12)
    assert float(mmd(q, p)) == pytest.approx(2 * sum(1 / (1 + s) for s in MMD_SCALES), rel=1e-12)
    assert float(mmd(p, p)) == pytest.approx(0, abs=1e-12)


def test_mmd_of_one_two_point_set_is_negative() -> None:
    p = torch.stack([unit(0, 0), unit(16, 0)])
    assert float(mmd(p, p)) == pytest.approx(-3.5, rel=1e-12)


def test_mmd_of_small_sets() -> None:
    p = rows((0, 0), (1, 0), (0, 1), (1, 1))
    q = rows((0.5, 0.5), (-0.5, 0.5), (0.5, -0.5), (-0.5, -0.5))
    assert float(mmd(q, p)) == pytest.approx(-0.2660569470, rel=1e-9)
    assert float(mmd(q, p, prior_variance=2)) == pytest.approx(-0.1563059764, rel=1e-9)
    q = torch.stack([unit(16, 0), unit(16, 1)])
    assert float(mmd(q, torch.zeros_like(q))) == pytest.approx(2.7194805195, rel=1e-10)


def draws(n: int, count: int, scale: float) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    p = torch.randn(count, n, 128, generator=generator)
    q = scale * torch.randn(count, n, 128, generator=generator)
    return torch.stack([mmd(q[i], p[i]) for i in range(count)]).double()


@pytest.mark.parametrize(("n", "sd"), [(256, 0.0012), (64, 0.0051)])
def test_mmd_of_equal_distributions(n: int, sd: float) -> None:
    """Mean and deviation of 40 draws have 4 standard errors each: error rate about 1e-4."""
    values = draws(n, 40, 1.0)
    assert abs(float(values.mean())) < 4 * sd / 40**0.5
    assert float(values.std()) == pytest.approx(sd, rel=4 / 78**0.5)


@pytest.mark.parametrize(("scale", "sd"), [(0.5, 0.0069), (0.0, 0.0090)])
def test_mmd_of_different_distributions(scale: float, sd: float) -> None:
    """N(0, I) against N(0, scale²·I); 4 standard errors of 20 draws, error rate about 1e-4.

    A distance |a − b|² is v·χ²(m) with v the sum of the variances, so the expected kernels are
    one-dimensional integrals.
    """

    def expected_kernel(v: float) -> float:
        t = np.linspace(1e-9, 500, 20_001)
        kernel = sum(256 * s / (256 * s + v * t) for s in MMD_SCALES)
        return float(trapezoid(kernel * chi2(128).pdf(t), t))

    v = scale**2
    expected = expected_kernel(2 * v) + expected_kernel(2) - 2 * expected_kernel(1 + v)
    assert expected == pytest.approx({0.5: 0.44809, 0.0: 1.93216}[scale], abs=1e-5)
    assert float(draws(256, 20, scale).mean()) == pytest.approx(expected, abs=4 * sd / 20**0.5)


def test_mmd_takes_latent_maps_and_gives_the_prior_no_gradient() -> None:
    torch.manual_seed(0)
    q = torch.randn(4, 6, 1, 1, dtype=F64, requires_grad=True)
    p = torch.randn(4, 6, dtype=F64, requires_grad=True)
    mmd(q, p).backward()
    assert p.grad is None and q.grad is not None
    assert torch.autograd.gradcheck(lambda z: mmd(z, p.detach()), [q])


def test_losses_ignore_autocast() -> None:
    torch.manual_seed(0)
    q, p = torch.randn(32, 128), torch.randn(32, 128)
    with torch.autocast("cpu", torch.bfloat16):
        inside, root = mmd(q, p), rmse(q, p)
    assert inside.dtype == torch.float32 and torch.equal(inside, mmd(q, p))
    assert torch.equal(root, rmse(q, p))
    half = mmd(q.bfloat16(), p)
    assert half.dtype == torch.float32
    assert torch.equal(half, mmd(q.bfloat16().float(), p))


def test_float32_is_close_to_float64() -> None:
    torch.manual_seed(0)
    q, p = torch.randn(64, 128, dtype=F64), torch.randn(64, 128, dtype=F64)
    assert float(mmd(q.float(), p.float())) == pytest.approx(float(mmd(q, p)), abs=5e-6)


def test_rmse_is_one_root_for_the_batch() -> None:
    zero = torch.zeros(4, 3, 64, 64)
    assert float(rmse(zero, zero + 0.5)) == pytest.approx(0.5)
    one_wrong = zero.clone()
    one_wrong[1] = 1
    assert float(rmse(one_wrong, zero)) == pytest.approx(0.5)


def test_rmse_gradient() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 3, 4, 4, dtype=F64)
    x_hat = torch.randn(3, 3, 4, 4, dtype=F64, requires_grad=True)
    loss = rmse(x_hat, x)
    loss.backward()
    expected = (x_hat.detach() - x) / (x.numel() * float(loss.detach()))
    assert x_hat.grad is not None and torch.allclose(x_hat.grad, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_rmse_of_a_perfect_fit_has_no_gradient(dtype: torch.dtype) -> None:
    x = torch.ones(2, 3, 4, 4, dtype=dtype, requires_grad=True)
    loss = rmse(x, torch.ones_like(x))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-18)
    assert x.grad is not None and not x.grad.any()


@pytest.mark.parametrize(
    ("c", "per_pixel", "per_image"),
    [
        (3**-0.5, 0, 39_690),
        (12288**-0.5, 9.689941, 0),
        (1, 5.358984, 10 * (12288**0.5 - 1) ** 2),
    ],
)
def test_gradient_penalty_of_a_linear_critic(c: float, per_pixel: float, per_image: float) -> None:
    def critic(u: Tensor) -> Tensor:
        return c * u.flatten(1).sum(1, keepdim=True)

    real, fake = torch.zeros(2, 3, 64, 64, dtype=F64), torch.ones(2, 3, 64, 64, dtype=F64)
    mix = torch.tensor([0.2, 0.9], dtype=F64)
    pixel = 10 * gradient_penalties(critic, real, fake, mix, "per_pixel").mean()
    image = 10 * gradient_penalties(critic, real, fake, mix, "per_image").mean()
    assert float(pixel) == pytest.approx(per_pixel, rel=1e-6, abs=1e-9)
    assert float(image) == pytest.approx(per_image, rel=1e-6, abs=1e-9)


def test_gradient_penalty_interpolates_and_trains_the_critic() -> None:
    """The critic f(u) = w·Σu²/2 has ∇f = w·u, so every number follows from the mixed image."""
    w = torch.tensor(1.5, dtype=F64, requires_grad=True)
    real = torch.full((2, 3, 4, 4), 2.0, dtype=F64)
    fake = torch.full((2, 3, 4, 4), -1.0, dtype=F64)
    mix = torch.tensor([0.25, 0.5], dtype=F64)
    u = mix * 2 - (1 - mix)

    def critic(x: Tensor) -> Tensor:
        return w * x.square().flatten(1).sum(1, keepdim=True) / 2

    penalty = gradient_penalties(critic, real, fake, mix).mean()
    length = 3**0.5 * u.abs()
    expected = float((1.5 * length - 1).square().mean())
    assert float(penalty.detach()) == pytest.approx(expected, rel=1e-12)
    penalty.backward()
    slope = float((2 * (1.5 * length - 1) * length).mean())
    assert w.grad is not None and float(w.grad) == pytest.approx(slope, rel=1e-12)


def test_gradient_penalty_is_finite_where_the_critic_is_flat() -> None:
    w = torch.zeros((), dtype=F64, requires_grad=True)
    x = torch.ones(1, 3, 2, 2, dtype=F64)
    a = torch.ones(1, dtype=F64)
    (penalty,) = gradient_penalties(lambda u: w * u.flatten(1).sum(1), x, x, a)
    penalty.backward()
    assert float(penalty.detach()) == 1
    assert w.grad is not None and bool(torch.isfinite(w.grad))


def test_the_penaltys_norm_is_exact_in_float32() -> None:
    """It is that of an image's 12,288 slopes, which one running sum gets wrong by 1e-4."""
    real = torch.zeros(2, 3, 64, 64)
    slope = 3**-0.5
    penalties_B = gradient_penalties(
        lambda u: slope * u.flatten(1).sum(1), real, real, torch.zeros(2), "per_image"
    )
    assert penalties_B.tolist() == pytest.approx([63**2] * 2, rel=1e-6)


def test_logistic_loss() -> None:
    logits = torch.tensor([-800.0, -1.0, 0.0, 2.0, 800.0], dtype=F64, requires_grad=True)
    for positive in (True, False):
        target = torch.full_like(logits, float(positive))
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
        assert float(logistic_loss(logits, positive).detach()) == pytest.approx(float(expected))
    assert torch.autograd.gradcheck(lambda x: logistic_loss(x, True), [logits])
    assert logistic_loss(torch.zeros(3, dtype=torch.bfloat16), True).dtype == torch.float32


@pytest.mark.parametrize("variance", [1.0, 0.3, 4.0])
def test_prior_log_density(variance: float) -> None:
    torch.manual_seed(0)
    z = torch.randn(5, 7, dtype=F64)
    expected = torch.distributions.Normal(0.0, variance**0.5).log_prob(z).sum(1)
    assert torch.allclose(prior_log_density(z, variance), expected, rtol=1e-6)
    assert torch.equal(
        prior_log_density(z[:, :, None, None], variance), prior_log_density(z, variance)
    )


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="two rows or more"):
        mmd(torch.zeros(1, 4), torch.zeros(1, 4))
    with pytest.raises(InputError, match="must be positive"):
        mmd(torch.zeros(2, 4), torch.zeros(2, 4), prior_variance=0)
    with pytest.raises(InputError, match="different shapes"):
        rmse(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 1, 1))
