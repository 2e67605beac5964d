"""Both directions against the closed form: exact data, unbiased weights, gaps of the right sign."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from gencomp.errors import InputError
from gencomp.rate_distortion import ais, bdmc, closed_form, hmc, pilot, schedules
from gencomp.rate_distortion.distortion import (
    Distortion,
    FeatureError,
    GaussianLikelihood,
    SquaredError,
)
from gencomp.rate_distortion.priors import Gaussian
from gencomp.rate_distortion.reduction import LinearReduction
from gencomp.rate_distortion.tuning import Tuning
from tests.gencomp.rate_distortion.surrogate import surrogate

# three values, two latents
WEIGHT_NK = torch.tensor([[1, 0.5], [0, 1], [1, -1]], dtype=torch.float64)
BIAS_N = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
PRIOR = Gaussian(2)


def decode(z_BK: Tensor) -> Tensor:
    return z_BK @ WEIGHT_NK.T + BIAS_N


def toy(kind: Literal["mse", "nll"] = "mse") -> LinearReduction:
    return LinearReduction(WEIGHT_NK, BIAS_N, torch.zeros(1, 3).double(), kind)


def toy_tuning(betas: np.ndarray, seed: int = 6) -> Tuning:
    """Steps that are stable everywhere on the toy."""
    return Tuning(betas, 0.5 / np.sqrt(1 + 2 * betas * 1.63**2), 5, 2, PRIOR.identity, seed)


def toy_exact(x_IN: Tensor, betas: np.ndarray | list[float]) -> closed_form.ExactCurve:
    return closed_form.linear_gaussian(WEIGHT_NK, BIAS_N, x_IN, torch.tensor(betas))


def toy_posterior(x_IN: Tensor, precision_N: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [I, K] and covariance [K, K] of z given x = f(z) + noise of that precision."""
    weighted_KN = WEIGHT_NK.T * precision_N
    covariance = torch.linalg.inv(torch.eye(2).double() + weighted_KN @ WEIGHT_NK)
    return (x_IN - BIAS_N) @ weighted_KN.T @ covariance, covariance


def standard_error(values: Tensor) -> float:
    return values.std().item() / math.sqrt(len(values))


LOG_VARIANCE_N = torch.tensor([0.0, -1.0, 1.0], dtype=torch.float64)
NOISES: list[tuple[str, Distortion, Tensor]] = [  # distortion and 1/variance of x at β = 1
    ("squared error", SquaredError(decode, torch.zeros(1, 3).double()), torch.full((3,), 2.0)),
    (
        "likelihood",
        GaussianLikelihood(decode, torch.zeros(1, 3).double(), LOG_VARIANCE_N),
        (-LOG_VARIANCE_N).exp(),
    ),
    ("reduced mse", toy("mse"), torch.full((3,), 2.0)),
    ("reduced nll", toy("nll"), torch.ones(3)),
]


@pytest.mark.parametrize(("name", "distortion", "precision_N"), NOISES, ids=[n[0] for n in NOISES])
def test_latents_are_exact_posterior_samples(name, distortion, precision_N):
    """Whitened by each image's posterior they are standard normal and know nothing of the image.

    5 moments and 6 correlations with x of 20,000 pairs, at 5 standard errors: fails once in 10⁵.
    """
    beta, count = 3.0, 20_000
    simulated = bdmc.simulate(distortion, PRIOR, beta, 11, range(count))
    mean_IK, covariance = toy_posterior(simulated.x_IN, beta * precision_N.double())
    root = torch.linalg.cholesky(covariance)
    white_IK = torch.linalg.solve_triangular(root, (simulated.z_IK - mean_IK).T, upper=False).T
    x_white_IN = (simulated.x_IN - simulated.x_IN.mean(0)) / simulated.x_IN.std(0)
    checks = [
        *white_IK.T,
        *((white_IK.square() - 1) / math.sqrt(2)).T,
        white_IK[:, 0] * white_IK[:, 1],
        *(white_IK[:, :1] * x_white_IN).T,
        *(white_IK[:, 1:] * x_white_IN).T,
    ]
    for values in checks:
        assert abs(values.mean()) < 5 / math.sqrt(count)


def test_simulated_images_are_keyed():
    """The keys are seed and id alone, and nothing that a run of the same seed uses."""
    first = bdmc.simulate(toy(), PRIOR, 3.0, 11, [4, 9, 2])
    again = bdmc.simulate(toy(), PRIOR, 3.0, 11, [2, 8, 4])
    assert torch.equal(first.z_IK[[0, 2]], again.z_IK[[2, 0]])
    torch.testing.assert_close(first.x_IN[[0, 2]], again.x_IN[[2, 0]], rtol=1e-14, atol=1e-14)

    colder = bdmc.simulate(toy(), PRIOR, 12.0, 11, [4, 9, 2])
    assert torch.equal(colder.z_IK, first.z_IK)
    clean_IN = decode(first.z_IK)
    torch.testing.assert_close(2 * (colder.x_IN - clean_IN), first.x_IN - clean_IN)

    other = bdmc.simulate(toy(), PRIOR, 3.0, 12, [4, 9, 2])
    assert (other.z_IK - first.z_IK).abs().min() > 0
    chains = PRIOR.draw(11, [4, 9, 2], 3)
    assert (chains - first.z_IK[:, None]).abs().min() > 0


def test_simulated_in_the_dtype_of_the_chains():
    """The latent z* is rounded before it is decoded: chains start at the z* of the image."""
    single = SquaredError(lambda z: z @ WEIGHT_NK.float().T + BIAS_N.float(), torch.zeros(1, 3))
    simulated = bdmc.simulate(single, PRIOR, 1e10, 11, range(5))
    assert simulated.z_IK.dtype == simulated.x_IN.dtype == torch.float32
    d_IM, _ = single.of(simulated.x_IN).value_and_grad(simulated.z_IK[:, None])
    assert d_IM.max() < 1e-8


def test_perfect_kernels():
    """Exact draws instead of HMC, 8,000 simulated images, one chain each way.

    E Ẑ/Z = E Z Ŵ = 1, and the mean gap is Σ Δβ (D_j - D_j+1). 3 means at 4 standard errors (2e-4).
    """
    betas, count = schedules.sigmoid(10, 51, 10), 8_000
    simulated = bdmc.simulate(toy(), PRIOR, 10.0, 11, range(count))
    settings = (toy(), PRIOR, toy_tuning(betas), simulated, 50, 7, range(count))
    forward, reverse = bdmc.forward_run(*settings), bdmc.reverse_run(*settings)
    exact = toy_exact(simulated.x_IN, betas)
    generator = torch.Generator().manual_seed(3)

    def exact_draws(beta: float) -> hmc.State:
        mean_IK, covariance = toy_posterior(simulated.x_IN, torch.full((3,), 2 * beta).double())
        normals_IK = torch.randn(count, 2, generator=generator, dtype=torch.float64)
        z_IK = mean_IK + normals_IK @ torch.linalg.cholesky(covariance).T
        return hmc.init(z_IK[:, None], forward.distortion)

    def log_weight(run: ais.Walk, state: ais.AISState) -> Tensor:
        for before, after in pairwise(run.betas.tolist()):
            state = ais.reweight(state, after - before)._replace(chain=exact_draws(after))
        walked = float(run.betas[-1] - run.betas[0])
        return state.log_weight_IM[:, 0] - walked * state.d_ref_I

    up_I = log_weight(forward, ais.start(forward, 1))
    down_I = log_weight(reverse, ais.start_reverse(reverse, simulated.z_IK, 1))
    log_z_I = exact.log_z_IT[:, -1]
    for ratio_I in ((up_I - log_z_I).exp(), (down_I + log_z_I).exp()):
        assert abs(ratio_I.mean() - 1) < 4 * standard_error(ratio_I)
    drop_IT = exact.distortion_IT[:, :-1] - exact.distortion_IT[:, 1:]
    expected_I = (drop_IT * torch.from_numpy(np.diff(betas))).sum(-1)
    assert abs((-down_I - up_I - expected_I).mean()) < 4 * standard_error(-down_I - up_I)


def test_resampling_keeps_the_reverse_estimate_unbiased():
    """E Z Ŵ = 1 for so coarse a schedule that nearly all images resample, from one z*.

    One mean at 4 standard errors (6e-5); the bound of log Z from above at 3 (1e-3).
    """
    betas, count = np.linspace(0, 2, 12), 1_500
    simulated = bdmc.simulate(toy(), PRIOR, 2.0, 11, range(count))
    run = dataclasses.replace(
        bdmc.reverse_run(toy(), PRIOR, toy_tuning(betas), simulated, 11, 7, range(count)),
        resample_below=0.9,
    )
    state, resampled_I = ais.start_reverse(run, simulated.z_IK, 8), torch.zeros(count).bool()
    while not ais.done(run, state):
        state, row = ais.advance(run, state)
        resampled_I |= row.resampled_I
    assert resampled_I.float().mean() > 0.9
    log_z_I = toy_exact(simulated.x_IN, [2.0]).log_z_IT[:, 0]
    ratio_I = (row.log_z_I + log_z_I).exp()
    assert abs(ratio_I.mean() - 1) < 4 * standard_error(ratio_I)
    excess_I = -row.log_z_I - log_z_I
    assert excess_I.mean() > -3 * standard_error(excess_I)


def test_reverse_run_resumes_bit_identically():
    betas = np.linspace(0, 2, 12)
    simulated = bdmc.simulate(toy(), PRIOR, float(betas[9]), 11, range(4))
    settings = (toy(), PRIOR, toy_tuning(betas), simulated, 9, 7, range(4))
    run = bdmc.reverse_run(*settings)
    state, rows = ais.start_reverse(run, simulated.z_IK, 6), []
    saved = []
    while not ais.done(run, state):
        saved.append({name: t.clone() for name, t in ais.to_tensors(run, state).items()})
        state, row = ais.advance(run, state)
        rows.append(row)
    assert [row.beta for row in rows] == betas[8::-1].tolist()
    for stop in (0, 5, 8):
        again = bdmc.reverse_run(*settings)
        state = ais.from_tensors(again, saved[stop])
        for expected in rows[stop:]:
            state, row = ais.advance(again, state)
            for got, wanted in zip(row, expected, strict=True):
                torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)

    other = bdmc.simulate(toy(), PRIOR, float(betas[9]), 12, range(4))
    strangers = [
        bdmc.forward_run(*settings),
        bdmc.reverse_run(toy(), PRIOR, toy_tuning(betas), simulated, 10, 7, range(4)),
        bdmc.reverse_run(toy(), PRIOR, toy_tuning(betas), other, 9, 7, range(4)),
    ]
    for stranger in strangers:
        with pytest.raises(InputError, match="another walk"):
            ais.from_tensors(stranger, saved[3])


class Certified(NamedTuple):
    gaps: list[bdmc.Gap]
    log_z_I: list[Tensor]  # closed form, of the same images


def certify(temperatures: int, leapfrog: int, pilot_temperatures: int) -> Certified:
    """The surrogate's likelihood to β = 200: 16 images, 16 chains, at β = 1, 10, 200."""
    images = 16
    weight_NK, bias_N, x_IN = surrogate(10, images)
    distortion, prior = LinearReduction(weight_NK, bias_N, x_IN, "nll"), Gaussian(10)
    tuning = pilot.tune(
        distortion,
        prior,
        beta_max=200,
        temperatures=temperatures,
        chains=16,
        leapfrog=leapfrog,
        seed=6,
        pilot_temperatures=pilot_temperatures,
    )
    gaps, log_z = [], []
    for beta in (1, 10, 200):
        last = int(np.abs(np.log(tuning.betas[1:] / beta)).argmin()) + 1
        keys = {"seed": 7, "simulation_seed": 11, "image_ids": range(images)}
        gap = bdmc.bracket(distortion, prior, tuning, last, chains=16, **keys)
        assert gap.beta == tuning.betas[last] == pytest.approx(beta, rel=0.02)
        x_simulated_IN = bdmc.simulate(distortion, prior, gap.beta, 11, range(images)).x_IN
        curve = closed_form.linear_gaussian(
            weight_NK, bias_N, x_simulated_IN, torch.tensor([gap.beta]).double(), "nll"
        )
        gaps.append(gap)
        log_z.append(curve.log_z_IT[:, 0])
    return Certified(gaps, log_z)


def check_certificate(certified: Certified) -> None:
    """Sign and size of the gap, and log Z between the bounds in the mean: 9 × 3 standard errors."""
    for gap, log_z_I in zip(*certified, strict=True):
        assert -3 * gap.standard_error < gap.gap < 0.6
        for excess_I in (log_z_I - gap.forward_I, gap.backward_I - log_z_I):
            assert excess_I.mean() > -3 * standard_error(excess_I)


def test_gap_encloses_log_z():
    check_certificate(certify(temperatures=300, leapfrog=5, pilot_temperatures=150))


@pytest.mark.slow
def test_gap_of_two_thousand_temperatures():
    certified = certify(temperatures=2_000, leapfrog=10, pilot_temperatures=500)
    check_certificate(certified)
    assert certified.gaps[0].gap < 0.1 and certified.gaps[1].gap < 0.2


def test_gap_is_a_mean_with_its_error():
    forward_I = torch.tensor([-3.0, -5.0, -4.0]).double()
    gap = bdmc.Gap(2.0, forward_I, forward_I + torch.tensor([0.0, 2.0, 1.0]))
    assert gap.gap == pytest.approx(1)
    assert gap.standard_error == pytest.approx(1 / math.sqrt(3))
    assert math.isnan(bdmc.Gap(2.0, forward_I[:1], forward_I[:1]).standard_error)


def test_refusals():
    betas = np.linspace(0, 2, 12)
    features = FeatureError(decode, torch.zeros(1, 3).double(), torch.tanh)
    with pytest.raises(InputError, match="no bidirectional check"):
        bdmc.simulate(features, PRIOR, 1.0, 11, [0])
    for beta in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="must be positive"):
            bdmc.simulate(toy(), PRIOR, beta, 11, [0])
    with pytest.raises(InputError, match="appears twice"):
        bdmc.simulate(toy(), PRIOR, 1.0, 11, [3, 3])
    with pytest.raises(InputError, match="outside"):
        bdmc.simulate(toy(), PRIOR, 1.0, -1, [3])

    simulated = bdmc.simulate(toy(), PRIOR, 1.0, 11, range(3))
    tuning = toy_tuning(betas)
    with pytest.raises(InputError, match="tuning round's seed"):
        bdmc.reverse_run(toy(), PRIOR, tuning, simulated, 5, 6, range(3))
    with pytest.raises(InputError, match="2 image ids for 3 images"):
        bdmc.forward_run(toy(), PRIOR, tuning, simulated, 5, 7, range(2))
    run = bdmc.reverse_run(toy(), PRIOR, tuning, simulated, 5, 7, range(3))
    with pytest.raises(InputError, match="start_reverse"):
        ais.start(run, 4)
    with pytest.raises(InputError, match="start samples"):
        ais.start_reverse(run, simulated.z_IK[:2], 4)
    keys = {"chains": 4, "seed": 7, "simulation_seed": 11, "image_ids": range(3)}
    for last in (0, 12, -1):
        with pytest.raises(InputError, match="outside 1"):
            bdmc.bracket(toy(), PRIOR, tuning, last, **keys)
