"""Priors: exact keyed samples, potentials that are their densities', and their effect on R(D)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import distributions

from gencomp.errors import InputError
from gencomp.rate_distortion import ais, pilot
from gencomp.rate_distortion.priors import FromDistribution, Gaussian, GaussianMixture, Prior

LOC, SCALE_TRIL = torch.tensor([1.0, -2]).double(), torch.tensor([[2.0, 0], [1, 0.5]]).double()
MEANS = [[0.0, 0], [3, -1]]


def mixture() -> GaussianMixture:
    return GaussianMixture(2, [1.0, 3.0], [1.0, 0.5], MEANS)


def torch_mixture() -> distributions.Distribution:
    components = distributions.MultivariateNormal(
        torch.tensor(MEANS).double(),
        torch.eye(2).double() * torch.tensor([1.0, 0.25])[:, None, None],
    )
    return distributions.MixtureSameFamily(
        distributions.Categorical(torch.tensor([0.25, 0.75]).double()), components
    )


CASES: dict[str, tuple[Prior, distributions.Distribution]] = {
    "gaussian": (
        Gaussian(2, 2.5),
        distributions.Independent(distributions.Normal(torch.zeros(2).double(), 2.5), 1),
    ),
    "mixture": (mixture(), torch_mixture()),
    "distribution": (
        FromDistribution(distributions.MultivariateNormal(LOC, scale_tril=SCALE_TRIL), 2, "mvn"),
        distributions.MultivariateNormal(LOC, scale_tril=SCALE_TRIL),
    ),
}


@pytest.fixture(params=CASES)
def case(request) -> tuple[Prior, distributions.Distribution]:
    return CASES[request.param]


def test_potential_is_the_density_up_to_a_constant(case):
    prior, reference = case
    z = 3 * torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(1)).double()
    z.requires_grad_()
    log_p = reference.log_prob(z)
    (grad,) = torch.autograd.grad(log_p.sum(), z)
    potential, got = prior.potential_and_grad(z.detach())
    assert potential.dtype == torch.float64 and potential.shape == (4, 5)
    torch.testing.assert_close(potential - potential[0, 0], log_p[0, 0] - log_p, atol=1e-9, rtol=0)
    torch.testing.assert_close(got, -grad, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(prior.grad(z.detach()), got)
    single = z.detach().float()
    assert prior.grad(single).dtype == torch.float32
    assert prior.potential_and_grad(single)[0].dtype == torch.float64


def test_draws_are_exact(case):
    """A two-sample Kolmogorov-Smirnov test of 1,000 vectors and 4,000 of torch, 1e-3 each."""
    prior, reference = case
    ours = prior.draw(3, range(10), 100)
    assert ours.shape == (10, 100, 2) and ours.dtype == torch.float64
    torch.manual_seed(1)
    theirs = reference.sample((4_000,))
    for direction in torch.tensor([[1.0, 0], [0, 1], [1, 1], [1, -1]]).double():
        sample = (ours.flatten(0, 1) @ direction, theirs @ direction)
        assert stats.ks_2samp(*(values.numpy() for values in sample)).pvalue > 1e-3


def test_draws_are_keyed_by_image_and_chain(case):
    prior, _ = case
    many = prior.draw(3, [4, 9, 2], 6)
    assert torch.equal(prior.draw(3, [9], 2)[0], many[1, :2])
    assert not torch.isin(prior.draw(4, [9], 2), many).any()
    before = torch.get_rng_state()
    prior.draw(3, [9], 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_coin_for_a_whole_vector():
    """Coordinates of scales 1 and 1,000 never mix."""
    z = GaussianMixture(6, [1, 1], [1, 1000]).draw(3, range(10), 100).abs()
    wide = (z > 10).sum(-1)  # a wide coordinate is within 10 with probability 0.008
    assert ((wide == 0) | (wide >= 4)).all()
    assert 400 < (wide > 0).sum() < 600


def test_identities_tell_densities_apart():
    priors = [
        *(Gaussian(2), Gaussian(2, 2.0), Gaussian(3)),
        *(mixture(), GaussianMixture(2, [1, 3], [1, 0.5]), GaussianMixture(2, [1, 2], [1, 0.5])),
        FromDistribution(distributions.MultivariateNormal(LOC, scale_tril=SCALE_TRIL), 2, "mvn"),
    ]
    assert len({prior.identity for prior in priors}) == len(priors)
    assert GaussianMixture(2, [2, 6], [1, 0.5], MEANS).identity == mixture().identity


def test_refusals():
    with pytest.raises(InputError, match="must be positive"):
        Gaussian(2, 0.0)
    with pytest.raises(InputError, match="does not fit latent_dim 2"):
        GaussianMixture(2, [1, 1], [1.0])
    with pytest.raises(InputError, match="does not fit latent_dim 3"):
        GaussianMixture(3, [1, 1], [1.0, 2.0], MEANS)
    with pytest.raises(InputError, match="positive and finite"):
        GaussianMixture(2, [1, 0], [1.0, 2.0])
    with pytest.raises(InputError, match="needs an identity"):
        FromDistribution(torch_mixture(), 2, "")
    factorised = FromDistribution(distributions.Normal(torch.zeros(2), 1.0), 2, "N(0, I)")
    assert factorised.draw(3, [1], 2).shape == (1, 2, 2)
    with pytest.raises(InputError, match="one number a vector"):
        factorised.grad(torch.zeros(1, 2, 2))
    with pytest.raises(InputError, match="have the shape"):
        FromDistribution(distributions.Normal(torch.zeros(3), 1.0), 2, "N(0, I)").draw(3, [1], 2)


def excess_rate(toy, prior: Prior, copies: int = 25) -> tuple[torch.Tensor, torch.Tensor]:
    """log Z of N(0, I) minus that of the prior at β = 10: mean over copies [I], and its error."""
    settings = {"beta_max": 10, "temperatures": 100, "chains": 16, "leapfrog": 5}
    tuning = pilot.tune(toy.reduced(), prior, seed=6, pilot_temperatures=100, **settings)
    run = ais.Walk(toy.reduced("mse", copies), prior, tuning, 7, range(2 * copies))
    state = ais.start(run, 16)
    while not ais.done(run, state):
        state, row = ais.advance(run, state)
    rise = toy.exact([10.0]).log_z_IT[:, 0] - row.log_z_I.view(copies, 2)
    return rise.mean(0), rise.std(0) / copies**0.5


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.99])
def test_a_mixture_raises_the_curve_by_at_most_minus_log_one_minus_w(toy, weight):
    """N(0, I) with weight 1 - w and N(0, 100 I) with weight w: one-sided at 3 standard errors.

    1e-3 for each of two images; and two-sided at 4 against the exact mixture of two closed forms.
    """
    rise, error = excess_rate(toy, GaussianMixture(2, [1 - weight, weight], [1.0, 10.0]))
    assert (rise < -math.log(1 - weight) + 3 * error).all()
    parts = [
        log_share + toy.exact([10.0], prior_scale=scale).log_z_IT[:, 0]
        for log_share, scale in ((math.log(1 - weight), 1.0), (math.log(weight), 10.0))
    ]
    exact = toy.exact([10.0]).log_z_IT[:, 0] - torch.stack(parts).logsumexp(0)
    assert ((rise - exact).abs() < 4 * error + 0.02).all()


def test_any_distribution_takes_part(toy):
    """N(0, I) as a torch distribution gives the closed form: 4 standard errors for two images."""
    standard = distributions.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    rise, error = excess_rate(toy, FromDistribution(standard, 2, "N(0, I)"), copies=10)
    assert (rise.abs() < 4 * error + 0.02).all()
    np.testing.assert_array_less(error, 0.2)
