"""Chains from modes: the case that no other diagnostic sees, and that healthy runs pass."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from gencomp.errors import InputError
from gencomp.rate_distortion import ais, bdmc, certificate, modes, pilot
from gencomp.rate_distortion.certificate import Certification, lower_bound
from gencomp.rate_distortion.distortion import SquaredError
from gencomp.rate_distortion.modes import PRIOR_SHARE, Mixture
from gencomp.rate_distortion.priors import Gaussian, GaussianMixture
from tests.gencomp.rate_distortion import rare_region
from tests.gencomp.rate_distortion.rare_region import BETA

PRIOR = Gaussian(2)


@pytest.fixture(scope="module")
def rare():
    """An annealed run on 12 images from the rare region, and the certificate at its last β."""
    x_IN = rare_region.images(12, seed=1)
    distortion = rare_region.distortion(x_IN)
    tuning = pilot.tune(
        *(distortion.of(x_IN[:3]), PRIOR),
        beta_max=BETA,
        temperatures=60,
        chains=16,
        leapfrog=4,
        seed=6,
        pilot_temperatures=60,
    )
    walk = ais.Walk(distortion, PRIOR, tuning, 7, range(12))
    state, rows = ais.start(walk, 16), []
    while not ais.done(walk, state):
        state, row = ais.advance(walk, state)
        rows.append(row)
    found = certificate.certify(distortion, PRIOR, BETA, leapfrog=4, seed=9, image_ids=range(12))
    return distortion, tuning, rows, found


def test_what_every_other_diagnostic_calls_healthy_is_flagged(rare):
    """The curve is 100 nats off, and gap, ESS, acceptance and integration see nothing of it.

    The bounds of 12 images at α = 0.01 / 12 each: a bound that is wrong at all has a probability
    below 0.01, and the seeds are fixed.
    """
    distortion, tuning, rows, found = rare
    last = rows[-1]
    exact_I = rare_region.log_z(distortion.x_IN, BETA)
    missed_I = exact_I - last.log_z_I
    assert missed_I.mean() > 50 and missed_I.max() > 100

    keys = {"seed": 7, "simulation_seed": 8, "image_ids": range(16)}
    gap = bdmc.bracket(distortion, PRIOR, tuning, tuning.temperatures - 1, chains=16, **keys)
    assert abs(gap.gap) < 0.5
    assert last.ess_I.mean() > 8
    assert torch.stack([row.acceptance_I for row in rows]).mean() > 0.8
    assert (last.log_z_integral_I - last.log_z_I).abs().mean() < 0.5

    bound_I = lower_bound(found.log_z_IR.numpy(), 0.01 / 12)
    assert (bound_I <= exact_I.numpy()).all()
    shortfall_I = bound_I - last.log_z_I.numpy()
    # Every image on which the run has missed the region is flagged, and nearly in full.
    badly_I = (missed_I > 5).numpy()
    assert badly_I.sum() >= 6
    assert (shortfall_I[badly_I] > missed_I.numpy()[badly_I] - 1.5).all()
    assert (shortfall_I[~badly_I] < 1).all()


def test_healthy_runs_pass_and_the_bound_is_tight(surrogate):
    """A linear decoder in closed form, β from 1 to 36,000: no flag, and within 0.8 nats of log Z.

    Four bounds at α = 0.01 / 4: wrong at all with a probability below 0.01.
    """
    problem, prior = surrogate(10, 4), Gaussian(10)
    for beta in (1.0, 100.0, 36_000.0):
        distortion = problem.reduced()
        found = certificate.certify(
            distortion, prior, beta, leapfrog=5, seed=3, image_ids=range(4), starts=4
        )
        exact_I = problem.exact(beta).log_z_IT[:, 0].numpy()
        below_I = exact_I - lower_bound(found.log_z_IR.numpy(), 0.01 / 4)
        assert ((below_I > 0) & (below_I < 0.8)).all()
        assert found.distortion_IR.mean(1).numpy() == pytest.approx(
            problem.exact(beta).distortion_IT[:, 0].numpy(), rel=0.01
        )


def poor_modes(problem, beta: float) -> modes.Modes:
    """Gaussians beside the posterior and of a wrong width, for weights that vary by nats."""
    mean_IK, covariance = problem.posterior(beta)
    beside_IK = mean_IK + 0.4 * covariance.diagonal().sqrt()
    precision_KK = torch.diag(torch.linalg.inv(covariance).diagonal() * torch.tensor([0.7, 1.2]))
    images = len(mean_IK)
    return modes.Modes(
        beside_IK[:, None],
        precision_KK.expand(images, 1, 2, 2).contiguous(),
        torch.zeros(images, 1, dtype=torch.float64),
    )


def ratios(problem, beta: float, repeats: int, transitions: int) -> torch.Tensor:
    """log Ẑ / Z of independent groups of two chains from poor modes, [repeats · I, 16]."""
    images = len(problem.x_IN)
    distortion = problem.reduced(copies=repeats)
    poor = poor_modes(problem, beta)
    poor = modes.Modes(*(t.repeat(repeats, *[1] * (t.ndim - 1)) for t in poor))
    ids = range(repeats * images)
    run = Certification(
        *(distortion, PRIOR, beta, poor, 3, 5, ids), groups=16, chains=2, transitions=transitions
    )
    walk = run.walk()
    state = ais.start(walk, run.chains)
    while not ais.done(walk, state):
        state, _ = ais.advance(walk, state)
    found = run.estimates(walk, state).log_z_IR
    return found - problem.exact(beta).log_z_IT.repeat(repeats, 1)


def test_the_estimate_is_unbiased_whatever_the_modes_are(toy):
    """E Ẑ/Z = 1 for 6,400 groups at 4 standard errors, by one and by six steps (1e-4)."""
    for transitions in (1, 6):
        ratio = ratios(toy, 5.0, repeats=200, transitions=transitions).exp().flatten()
        assert ratio.log().std() > 0.1
        error = ratio.std() / math.sqrt(len(ratio))
        assert abs(ratio.mean() - 1) < 4 * error < 0.1


def test_false_flags_are_rarer_than_they_may_be(toy):
    """A share α of 2,000 bounds with poor modes may be wrong, in expectation.

    If it were α, more than α + 5 standard errors would come about with a probability below 10⁻⁵.
    """
    ratio_BR = ratios(toy, 5.0, repeats=1000, transitions=1).numpy()
    wrong = {alpha: (lower_bound(ratio_BR, alpha) > 0).mean() for alpha in (0.01, 0.1, 0.9)}
    for alpha, share in wrong.items():
        assert share <= alpha + 5 * math.sqrt(alpha * (1 - alpha) / 2000)
    assert wrong[0.9] > 0.01  # so that there is something to count


def test_the_bound_is_a_mean_less_a_margin():
    log_z_IR = np.array([[1.0, 3.0], [5.0, 5.0]])
    margin = math.log(100) / 2
    assert lower_bound(log_z_IR, 0.01) == pytest.approx([2 - margin, 5 - margin])
    for alpha in (0.0, 1.0, -0.1):
        with pytest.raises(InputError, match="between 0 and 1"):
            lower_bound(log_z_IR, alpha)


@pytest.mark.parametrize(
    "prior",
    [PRIOR, Gaussian(2, 1.7), GaussianMixture(2, (0.5, 0.5), (1.0, 3.0))],
    ids=["standard", "wider", "mixture"],
)
def test_the_mixture_is_a_density_with_its_gradient(toy, prior):
    """Samples have the density that is computed: E [uniform(box) / q] = 1 at 4 standard errors, and
    the gradient is that of the potential."""
    found = modes.find(toy.reduced(), prior, 4.0, starts=4, seed=2, image_ids=range(2))
    mixture = Mixture(prior, found, torch.device("cpu"))
    y_BMK = mixture.draw(5, range(4), 20_000)  # two rows of each image
    z_BMK = mixture.latent(y_BMK)
    potential_BM, _ = mixture.potential_and_grad(y_BMK)
    centre_B1K = found.z_ICK[:, :1].repeat_interleave(2, 0)
    inside_BM = ((z_BMK - centre_B1K).abs() < 1).all(-1)
    ratio_BM = inside_BM * potential_BM.exp() / 4
    error_B = ratio_BM.std(1) / math.sqrt(20_000)
    assert ((ratio_BM.mean(1) - 1).abs() < 4 * error_B).all()

    some_BMK = y_BMK[:, :5].clone().requires_grad_()
    own = [mixture.potential_and_grad(some_BMK + shift)[0] for shift in shifts(1e-5)]
    _, gradient_BMK = mixture.potential_and_grad(some_BMK)
    differences = torch.stack([own[0] - own[1], own[2] - own[3]], dim=-1) / 2e-5
    torch.testing.assert_close(gradient_BMK, differences, rtol=1e-4, atol=1e-4)
    assert (potential_BM <= -math.log(PRIOR_SHARE) + prior_potential(prior, z_BMK) + 1e-9).all()


def shifts(h: float) -> list[torch.Tensor]:
    return [torch.tensor(v).double() for v in ([h, 0.0], [-h, 0.0], [0.0, h], [0.0, -h])]


def prior_potential(prior, z_BMK):
    return prior.potential_and_grad(z_BMK)[0] + prior.log_normaliser


@pytest.mark.parametrize(
    "prior",
    [Gaussian(1, 1.7), GaussianMixture(1, (0.2, 0.8), (1.0, 4.0), [[1.0], [-2.0]])],
    ids=["gaussian", "mixture"],
)
def test_priors_state_what_their_potential_leaves_out(prior):
    z_1MK = torch.linspace(-60, 60, 40_001, dtype=torch.float64)[None, :, None]
    density = (-prior_potential(prior, z_1MK)).exp()[0]
    assert torch.trapezoid(density, z_1MK[0, :, 0]).item() == pytest.approx(1, abs=1e-6)


def test_modes_are_found_from_suggestions_that_no_start_reaches():
    """A narrow well far outside of the prior: 16 starts miss it, a suggested latent does not."""

    def decode(z_BK: torch.Tensor) -> torch.Tensor:
        centre = torch.full((2,), 9.0).to(z_BK)
        return torch.exp(-20 * (z_BK - centre).square().sum(1, keepdim=True)).expand(-1, 4)

    distortion = SquaredError(decode, torch.ones(1, 4, dtype=torch.float64))
    keys = {"starts": 16, "seed": 2, "image_ids": range(1)}
    without = modes.find(distortion, PRIOR, 500.0, **keys)
    suggested = torch.tensor([[[9.05, 8.9]]]).double()
    within = modes.find(distortion, PRIOR, 500.0, suggested_ISK=suggested, **keys)
    assert within.log_mass_IC[0, 0] > without.log_mass_IC[0, 0] + 1000
    assert (within.z_ICK[0, 0] - 9).abs().max() < 0.1


def test_two_modes_of_one_image_are_both_kept():
    """The decoder f(z) = z² has two latents for every image, of equal mass."""
    distortion = SquaredError(lambda z: z.square(), torch.full((3, 2), 1.5, dtype=torch.float64))
    found = modes.find(distortion, PRIOR, 100.0, starts=16, seed=2, image_ids=range(3))
    assert found.counts == [4, 4, 4]
    assert found.z_ICK.abs().mean().item() == pytest.approx(math.sqrt(1.5), abs=0.01)
    estimate = certificate.certify(distortion, PRIOR, 100.0, leapfrog=4, seed=2, image_ids=range(3))
    grid = torch.linspace(-5, 5, 100_001, dtype=torch.float64)
    one = (-0.5 * grid.square() - 100 * (grid.square() - 1.5).square()).exp()
    exact = 2 * math.log(torch.trapezoid(one, grid).item() / math.sqrt(2 * math.pi))
    assert estimate.log_z_IR.mean().item() == pytest.approx(exact, abs=0.1)


def test_groups_of_an_image_do_not_depend_on_its_block(toy):
    distortion, keys = toy.reduced(), {"leapfrog": 3, "seed": 3, "starts": 2}
    both = certificate.certify(distortion, PRIOR, 3.0, image_ids=[4, 9], **keys)
    second = certificate.certify(
        distortion.of(distortion.x_IN[1:]), PRIOR, 3.0, image_ids=[9], **keys
    )
    torch.testing.assert_close(both.log_z_IR[1:], second.log_z_IR, rtol=1e-6, atol=1e-6)
    other = certificate.certify(distortion, PRIOR, 3.0, image_ids=[4, 9], **{**keys, "seed": 4})
    assert (other.log_z_IR - both.log_z_IR).abs().min() > 0


def test_the_walk_resumes_bit_identically(toy):
    found = modes.find(toy.reduced(), PRIOR, 3.0, starts=2, seed=3, image_ids=range(2))
    run = Certification(toy.reduced(), PRIOR, 3.0, found, 3, 3, range(2), transitions=6)
    walk = run.walk()
    state, saved = ais.start(walk, 4), {}
    while not ais.done(walk, state):
        state, _ = ais.advance(walk, state)
        saved = saved or {name: t.clone() for name, t in ais.to_tensors(walk, state).items()}
    again = dataclasses.replace(run).walk()
    resumed = ais.from_tensors(again, saved)
    while not ais.done(again, resumed):
        resumed, _ = ais.advance(again, resumed)
    assert torch.equal(run.estimates(walk, state).log_z_IR, run.estimates(again, resumed).log_z_IR)
    with pytest.raises(InputError, match="another walk"):
        ais.from_tensors(dataclasses.replace(run, beta=4.0).walk(), saved)
