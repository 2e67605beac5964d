"""Schedules against tabulated values, and the geodesic against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gencomp.errors import InputError
from gencomp.rate_distortion import ais, hmc, pilot, schedules
from gencomp.rate_distortion.priors import Gaussian


@pytest.mark.parametrize(
    ("radius", "expected"),
    [
        (4, [0, 0.104993585404, 0.5, 0.895006414596, 1]),
        (10, [0, 0.006648056671, 0.5, 0.993351943329, 1]),
        (
            10,
            [
                *(0, 2.899785906e-4, 2.427445690e-3, 1.794244119e-2, 0.1191683441, 0.5),
                *(0.8808316559, 0.9820575588, 0.9975725543, 0.9997100214, 1),
            ],
        ),
    ],
)
def test_sigmoid_values(radius, expected):
    got = schedules.sigmoid(1.0, len(expected), radius)
    assert got.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_sigmoid_of_the_published_runs():
    betas = schedules.sigmoid(36_000, 60_000)
    assert len(betas) - 1 == 59_999 and (np.diff(betas) > 0).all()
    assert betas[1] == pytest.approx(5.449e-4, rel=1e-3)
    # the published cut into segments, one reported point at each segment's end
    starts = np.linspace(0, 60_000 - 30, 2_000).astype(int)
    ends = np.append(starts[1:], 59_999)
    assert len(np.unique(ends)) == 2_000
    assert betas[ends[48]] == pytest.approx(1.03345, rel=1e-5)
    assert betas[ends[1990]] == pytest.approx(35_999.8, abs=0.05)


def test_geodesic_has_steps_of_equal_length():
    pilot_betas = schedules.sigmoid(1000, 2001)
    sd = 3 / (1 + pilot_betas)
    betas = schedules.geodesic(pilot_betas, sd, 101)
    length = 3 * np.log1p(betas)  # ∫ sd dβ
    assert np.diff(length) == pytest.approx(np.full(100, 3 * np.log(1001) / 100), rel=2e-3)
    assert betas[0] == 0 and betas[-1] == 1000
    assert schedules.thermodynamic_length(pilot_betas, sd) == pytest.approx(3 * np.log(1001), 1e-3)


def test_geodesic_passes_flat_stretches():
    betas = schedules.geodesic(np.array([0.0, 1, 2, 3]), np.array([1.0, 0, 0, 1]), 50)
    assert (np.diff(betas) > 0).all()


def test_geodesic_refuses_a_decoder_that_ignores_its_latent():
    with pytest.raises(InputError, match="does the decoder use its latent"):
        schedules.geodesic(np.array([0.0, 1]), np.zeros(2), 10)


@pytest.mark.parametrize("beta_max", [0.0, -1.0, np.inf, np.nan])
def test_sigmoid_refuses(beta_max):
    with pytest.raises(InputError, match="positive, finite"):
        schedules.sigmoid(beta_max, 10)


@pytest.mark.parametrize("betas", [[0, 1, 1], [0, 2, 1], [1, 2], [0], [0, np.nan]])
def test_check_refuses(betas):
    with pytest.raises(InputError):
        schedules.check(np.array(betas, dtype=float))


def test_report_points():
    assert schedules.report_points(2001, 4) == [500, 1000, 1500, 2000]
    assert schedules.report_points(4, 40) == [1, 2, 3]
    points = schedules.report_points(1234, 40)
    assert len(points) == 40 and points[-1] == 1233


def test_next_by_cess_keeps_the_conditional_effective_sample_size():
    """Chains of d ~ N(m, s²) with equal weights: CESS/M = exp(-(s·step)²) of many chains."""
    generator = torch.Generator().manual_seed(1)
    for sd, offset in ((0.01, 1e6), (50.0, 300.0)):
        d = offset + sd * torch.randn(4, 20_000, generator=generator, dtype=torch.float64)
        after = schedules.next_by_cess(d, torch.zeros_like(d), 0.0, 1e4, 0.99, 1000)
        assert after == pytest.approx(np.sqrt(-np.log(0.99)) / sd, rel=0.02)
        # weights that say the same as another β
        log_weight = -(after / 10) * d
        again = schedules.next_by_cess(d, log_weight, after / 10, 1e4, 0.99, 1000)
        assert again - after / 10 == pytest.approx(after, rel=0.02)


def test_next_by_cess_always_arrives():
    d = torch.tensor([[0.0, 1e9]]).double()  # allows hardly any step
    beta, steps = 0.0, 0
    while beta < 10:
        beta = schedules.next_by_cess(d, torch.zeros_like(d), beta, 10.0, 0.99, 9 - steps)
        steps += 1
    assert beta == 10 and steps == 10
    assert schedules.next_by_cess(0 * d, 0 * d, 0.0, 10.0, 0.99, 9) == 10


def test_expected_gap_of_equal_lengths():
    """l²/2K of a geodesic schedule, as many times as its steps are short."""
    pilot_betas = schedules.sigmoid(1000, 2001)
    sd = 3 / (1 + pilot_betas)
    betas = schedules.geodesic(pilot_betas, sd, 301)
    length = schedules.thermodynamic_length(pilot_betas, sd)
    found = schedules.expected_gap(betas, pilot_betas, sd)
    assert found == pytest.approx(length**2 / 600, rel=0.03)


@pytest.mark.parametrize("temperatures", [20, 50, 400])
def test_expected_gap_of_a_sigmoid(surrogate, temperatures):
    """Σ KL(q_j ‖ q_j+1) in closed form; l²/2K is less than half of it here."""
    problem, betas = surrogate(10, 8), schedules.sigmoid(200, temperatures)
    fine = np.concatenate([[0.0], np.geomspace(1e-3, 200, 3000)])
    sd = problem.exact(fine, "nll").variance_IT.mean(0).sqrt().numpy()
    exact = problem.exact(betas, "nll")
    step_T = torch.from_numpy(np.diff(betas))
    divergence_IT = exact.log_z_IT.diff() + step_T * exact.distortion_IT[:, :-1]
    expected = divergence_IT.sum(-1).mean().item()
    assert schedules.expected_gap(betas, fine, sd) == pytest.approx(expected, rel=2e-3)
    assert expected > 2 * schedules.thermodynamic_length(fine, sd) ** 2 / (2 * len(step_T))


def test_dependent_moves_multiply_the_expected_gap(surrogate):
    """Sigmoid, T = 50: 64 single chains of 8 images fall short by the expected gap times the
    integrated autocorrelation time of d, weighted by each step's part; both within 10 %, where
    the standard errors are 2 %. Independent moves would be off by 40 % and more."""
    problem, prior = surrogate(10, 8), Gaussian(10)
    distortion, betas = problem.reduced("nll"), schedules.sigmoid(200, 50)
    tuning = pilot.tune(
        *(distortion, prior),
        beta_max=200,
        temperatures=50,
        chains=16,
        leapfrog=5,
        seed=6,
        pilot_temperatures=200,
        schedule="sigmoid",
    )
    walk = ais.Walk(distortion, prior, tuning, 7, range(8), resample_below=0)
    state = ais.start(walk, 64)
    while not ais.done(walk, state):
        state, _ = ais.advance(walk, state)
    log_z_IM = state.log_weight_IM - betas[-1] * state.d_ref_I[:, None]
    exact_I = problem.exact(betas[-1:], "nll").log_z_IT
    measured = (exact_I - log_z_IM).mean().item()

    part_T = np.diff(betas) ** 2 * problem.exact(betas, "nll").variance_IT.mean(0).numpy()[1:]
    some = np.flatnonzero(part_T > 0.01 * part_T.max())[::3]
    times = [autocorrelation_time(problem, tuning, walk.kernel(), j + 1) for j in some]
    factor = np.average(times, weights=part_T[some])
    assert factor > 1.4
    assert tuning.expected_gap * factor == pytest.approx(measured, rel=0.1)


def autocorrelation_time(problem, tuning, kernel, temperature: int, chains: int = 200) -> float:
    """The time 1 + 2 Σ ρ of d over transitions of the tuned kernel at one β, from exact samples."""
    beta = float(tuning.betas[temperature])
    mean_IK, covariance = problem.posterior(beta / 2)  # the likelihood's β is twice as large
    generator = torch.Generator().manual_seed(int(temperature))
    images, latent_dim = mean_IK.shape

    def normals() -> torch.Tensor:
        shape = (images, chains, latent_dim)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def uniforms() -> torch.Tensor:
        return torch.rand(images, chains, generator=generator, dtype=torch.float64)

    z_IMK = mean_IK[:, None] + normals() @ torch.linalg.cholesky(covariance).T
    state = hmc.init(z_IMK, problem.reduced("nll"))
    factor = ais.on_chain(tuning.factor(temperature), state)
    first, found = state.d_IM - state.d_IM.mean(1, keepdim=True), 1.0
    for _ in range(12):
        noise = hmc.Noise(normals(), uniforms(), uniforms())
        state, _ = kernel(state, noise, beta, float(tuning.step_sizes[temperature]), factor)
        now = state.d_IM - state.d_IM.mean(1, keepdim=True)
        found += 2 * ((first * now).mean() / first.square().mean()).item()
    return found
