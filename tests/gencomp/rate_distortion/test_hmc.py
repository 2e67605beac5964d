"""The integrator against golden values, and the kernel against the exact Gaussian posterior."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from gencomp.rate_distortion import hmc
from gencomp.rate_distortion.distortion import SquaredError
from gencomp.rate_distortion.priors import FromDistribution, Gaussian

PRIOR = Gaussian(2)


def trajectory(problem, eps: float, steps: int, beta: float = 2.0):
    """End point, momentum and energy error from z = (0.3, -0.2) and v = (0.5, 1)."""
    distortion = problem.full()
    state = hmc.init(torch.tensor([[[0.3, -0.2]]], dtype=torch.float64), distortion)
    v = torch.tensor([[[0.5, 1.0]]], dtype=torch.float64)
    end, w = hmc.leapfrog(distortion, PRIOR, state, v, beta, scalar(eps), steps)
    return state, v, end, w, energy(end, w, beta) - energy(state, v, beta)


def scalar(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def energy(state: hmc.State, v: Tensor, beta: float) -> float:
    return (0.5 * (state.z_IMK**2 + v**2).sum() + beta * state.d_IM.sum()).item()


def test_golden_trajectory(toy_x1):
    state, v, end, w, error = trajectory(toy_x1, 0.05, 20)
    assert state.d_IM.item() == pytest.approx(7.94, rel=1e-12)
    grad_u = state.z_IMK + 2 * state.grad_d_IMK
    assert grad_u.flatten().tolist() == pytest.approx([2.7, -16.4], rel=1e-12)
    assert energy(state, v, 2.0) == pytest.approx(16.57, rel=1e-12)
    assert end.z_IMK.flatten().tolist() == pytest.approx([0.530675125446, 3.080094067979], 1e-11)
    assert w.flatten().tolist() == pytest.approx([1.159612998691, -1.091942795094], rel=1e-11)
    assert error == pytest.approx(-0.0059363754, abs=1e-10)
    _, _, end, w, error = trajectory(toy_x1, 0.05, 1)
    assert end.z_IMK.flatten().tolist() == pytest.approx([0.321625, -0.1295], rel=1e-12)
    assert w.flatten().tolist() == pytest.approx([0.363659375, 1.80345625], rel=1e-12)
    assert error == pytest.approx(-0.0065546988, abs=1e-10)


def test_second_order(toy_x1):
    errors = [trajectory(toy_x1, 0.1 / 2**i, 10 * 2**i)[-1] for i in range(4)]
    expected = [-0.0259879951, -0.0059363754, -0.0014503381, -0.0003604945]
    assert errors == pytest.approx(expected, abs=1e-10)


FACTORS = {
    "identity": None,
    "diagonal": torch.tensor([0.5, 2.0], dtype=torch.float64),
    "dense": torch.tensor([[0.7, 0.0], [-0.4, 1.1]], dtype=torch.float64),
}


@pytest.mark.parametrize("low_precision", [False, True])
@pytest.mark.parametrize("factor", FACTORS.values(), ids=FACTORS)
def test_reversible(toy_x1, factor, low_precision):
    distortion = WrongForce(toy_x1.full(), "inside")
    state = hmc.init(torch.tensor([[[0.3, -0.2]]], dtype=torch.float64), distortion)
    v = torch.tensor([[[0.5, 1.0]]], dtype=torch.float64)
    settings = (2.0, scalar(0.05), 20, factor, low_precision)
    end, w = hmc.leapfrog(distortion, PRIOR, state, v, *settings)
    back, u = hmc.leapfrog(distortion, PRIOR, end, -w, *settings)
    assert (end.z_IMK - state.z_IMK).abs().min() > 0.01
    torch.testing.assert_close(back.z_IMK, state.z_IMK, rtol=0, atol=1e-12)
    torch.testing.assert_close(u, -v, rtol=0, atol=1e-12)


@pytest.mark.parametrize("low_precision", [False, True])
@pytest.mark.parametrize("factor", FACTORS.values(), ids=FACTORS)
def test_preserves_volume(toy_x1, factor, low_precision):
    """Central differences of the map on (z, v); it is affine for a linear decoder."""
    distortion = WrongForce(toy_x1.full(), "inside")
    settings = (2.0, scalar(0.2), 7, factor, low_precision)

    def move(point: Tensor) -> Tensor:
        state = hmc.init(point[None, None, :2], distortion)
        end, w = hmc.leapfrog(distortion, PRIOR, state, point[None, None, 2:], *settings)
        return torch.cat([end.z_IMK, w], -1).flatten()

    point = torch.tensor([0.3, -0.2, 0.5, 1.0], dtype=torch.float64)
    columns = [(move(point + e) - move(point - e)) / 2 for e in torch.eye(4, dtype=torch.float64)]
    assert torch.linalg.det(torch.stack(columns, -1)).item() == pytest.approx(1, abs=1e-8)


def test_a_metric_is_a_change_of_coordinates(toy_x1):
    """Steps with factor A on d(z) are steps of unit mass on d(A y), z = A y."""
    factor, plain = FACTORS["dense"], toy_x1.full().decode
    prior_of_z = FromDistribution(
        MultivariateNormal(torch.zeros(2).double(), torch.linalg.inv(factor.T @ factor)), 2, "y"
    )
    in_y = SquaredError(lambda y: plain(y @ factor.T), toy_x1.x_IN)
    y, v = torch.tensor([[[[0.3, -0.2]]], [[[0.5, 1.0]]]], dtype=torch.float64)
    state_y, state_z = hmc.init(y, in_y), hmc.init(y @ factor.T, toy_x1.full())
    end_y, w_y = hmc.leapfrog(in_y, prior_of_z, state_y, v, 2.0, scalar(0.1), 9)
    end_z, w_z = hmc.leapfrog(toy_x1.full(), PRIOR, state_z, v, 2.0, scalar(0.1), 9, factor)
    torch.testing.assert_close(end_z.z_IMK, end_y.z_IMK @ factor.T, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(w_z, w_y, rtol=1e-12, atol=1e-12)


def test_low_precision_is_for_forces_between_the_ends(toy_x1):
    """One kernel call: L - 1 rough forces; the end has the exact d and gradient."""
    distortion = WrongForce(toy_x1.full(), "inside")
    state = hmc.init(torch.zeros(1, 4, 2, dtype=torch.float64), distortion)
    kernel = hmc.build_kernel(distortion, PRIOR, 6)
    for low_precision, expected in ((False, 0), (True, 5)):
        distortion.rough = 0
        random = noise(state, torch.Generator().manual_seed(1))
        after, info = kernel(state, random, 0.5, 0.05, low_precision=low_precision)
        assert distortion.rough == expected and info.accepted_IM.all()
        d, grad = toy_x1.full().value_and_grad(after.z_IMK)
        assert torch.equal(after.d_IM, d) and torch.equal(after.grad_d_IMK, grad)


def test_cost_is_one_decoder_pass_a_step(toy_x1):
    calls = 0
    plain = toy_x1.full().decode

    def decode(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return plain(z)

    distortion = SquaredError(decode, toy_x1.x_IN)
    state = hmc.init(torch.zeros(1, 4, 2, dtype=torch.float64), distortion)
    calls = 0
    hmc.build_kernel(distortion, PRIOR, 20)(state, noise(state, torch.Generator()), 2.0, 0.1)
    assert calls == 20


class WrongForce:
    """Correct d, wrong gradient: scaled, rounded to bfloat16, or scaled in low precision only."""

    def __init__(self, right: SquaredError, kind: str) -> None:
        self.right, self.kind, self.x_IN, self.name = right, kind, right.x_IN, right.name
        self.rough = 0  # calls for low precision

    def value_and_grad(self, z_IMK: Tensor) -> tuple[Tensor, Tensor]:
        d, grad = self.right.value_and_grad(z_IMK)
        if self.kind == "bf16":
            return d, grad.bfloat16().to(grad.dtype)
        return d, 0.9 * grad if self.kind == "scaled" else grad

    def grad(self, z_IMK: Tensor, low_precision: bool = False) -> Tensor:
        self.rough += low_precision
        return self.value_and_grad(z_IMK)[1] * (0.9 if low_precision else 1)


def noise(state: hmc.State, generator: torch.Generator) -> hmc.Noise:
    images, chains, latent_dim = state.z_IMK.shape
    return hmc.Noise(
        torch.randn(images, chains, latent_dim, generator=generator, dtype=torch.float64),
        torch.rand(images, chains, generator=generator, dtype=torch.float64),
        torch.rand(images, chains, generator=generator, dtype=torch.float64),
    )


@pytest.mark.parametrize(
    ("force", "beta"),
    [
        *(("right", 2.0), ("right", 100.0), ("bf16", 2.0), ("scaled", 100.0)),
        *(("inside", 100.0), ("metric", 2.0)),
    ],
)
def test_invariance(toy_x1, force, beta):
    """20,000 exact samples stay exact through 50 transitions.

    Six statistics at 4 standard errors: a correct kernel fails with probability 4e-4 per case.
    """
    generator = torch.Generator().manual_seed(5)
    mean, covariance = toy_x1.posterior(beta)
    chains = 20_000
    root = torch.linalg.cholesky(covariance)
    normals = torch.randn(1, chains, 2, generator=generator, dtype=torch.float64)
    distortion = WrongForce(toy_x1.full(), force)
    # deliberately not the posterior's shape
    factor = torch.tensor([[1.2, 0], [0.4, 0.9]]).double() if force == "metric" else None
    state = hmc.init(mean + normals @ root.T, distortion)
    kernel = hmc.build_kernel(distortion, PRIOR, 4)
    omega = (1 + 2 * beta * 1.6249271378**2) ** 0.5
    acceptance = []
    for _ in range(50):
        state, info = kernel(
            *(state, noise(state, generator), beta, 1.25 / omega, factor),
            low_precision=force == "inside",
        )
        acceptance.append(info.acceptance_IM.mean().item())
    assert 0.5 < sum(acceptance) / 50 < 0.9

    white = torch.linalg.solve_triangular(root, (state.z_IMK[0] - mean).T, upper=False)
    products = torch.stack([white[0] ** 2 - 1, white[1] ** 2 - 1, white[0] * white[1]])
    curve = toy_x1.exact([beta])
    error_d = (state.d_IM[0] - curve.distortion_IT[0, 0])[None]
    statistics = torch.cat([white, products, error_d])
    scores = statistics.mean(-1) / (statistics.std(-1) / chains**0.5)
    assert scores.abs().max() < 4


def test_mean_of_exp_minus_energy_error_is_one(toy_x1):
    """The chain is stationary, and steps are short of the stability limit; 4 standard errors."""
    generator = torch.Generator().manual_seed(6)
    beta, chains = 2.0, 100_000
    mean, covariance = toy_x1.posterior(beta)
    normals = torch.randn(1, chains, 2, generator=generator, dtype=torch.float64)
    distortion = toy_x1.full()
    state = hmc.init(mean + normals @ torch.linalg.cholesky(covariance).T, distortion)
    omega = (1 + 2 * beta * 1.6249271378**2) ** 0.5
    _, info = hmc.build_kernel(distortion, PRIOR, 5)(
        state, noise(state, generator), beta, 1.4 / 1.5 / omega
    )
    ratio = info.energy_error_IM.neg().exp()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / chains**0.5


def test_prior_scale(toy_x1):
    """Exact samples of N(0, σ²) stay exact at β = 0: 2 statistics at 4 standard errors."""
    generator = torch.Generator().manual_seed(7)
    z = 3 * torch.randn(1, 20_000, 2, generator=generator, dtype=torch.float64)
    distortion = toy_x1.full()
    state = hmc.init(z, distortion)
    kernel = hmc.build_kernel(distortion, Gaussian(2, 3.0), 5)
    for _ in range(20):
        state, info = kernel(state, noise(state, generator), 0.0, 3.0)
    squares = state.z_IMK[0].square()
    assert 0.5 < info.acceptance_IM.mean() < 0.99
    assert ((squares.mean(0) - 9).abs() < 4 * squares.std(0) / 20_000**0.5).all()


def test_non_finite_proposals_are_rejected_and_counted(toy_x1):
    """Two decoder rows in a thousand are nan in every call, about 1 % of proposals."""
    generator = torch.Generator().manual_seed(8)
    plain = toy_x1.full().decode
    poison, touched = False, torch.zeros(1, 2_000, dtype=torch.bool)

    def decode(z: Tensor) -> Tensor:
        mean = plain(z)
        if poison:
            rows = torch.rand(len(z), generator=generator) < 0.002
            touched.logical_or_(rows)
            mean = mean * torch.where(rows[:, None], torch.nan, 1.0)
        return mean

    distortion = SquaredError(decode, toy_x1.x_IN)
    state = hmc.init(torch.randn(1, 2_000, 2, generator=generator).double(), distortion)
    kernel = hmc.build_kernel(distortion, PRIOR, 5)
    poison = True
    total = 0
    for _ in range(20):
        before = state
        touched.zero_()
        state, info = kernel(state, noise(state, generator), 2.0, 0.3)
        assert all(t.isfinite().all() for t in state)
        assert torch.equal(info.nonfinite_IM, touched)
        assert not info.accepted_IM[touched].any() and (info.acceptance_IM[touched] == 0).all()
        assert torch.equal(state.z_IMK[touched], before.z_IMK[touched])
        total += int(touched.sum())
    assert 200 < total < 600


def test_overflow_is_rejected(toy_x1):
    distortion = toy_x1.full()
    state = hmc.init(torch.zeros(1, 4, 2, dtype=torch.float64), distortion)
    after, info = hmc.build_kernel(distortion, PRIOR, 200)(
        state, noise(state, torch.Generator().manual_seed(9)), 1e4, 1e3
    )
    assert info.nonfinite_IM.all() and torch.equal(after.z_IMK, state.z_IMK)
