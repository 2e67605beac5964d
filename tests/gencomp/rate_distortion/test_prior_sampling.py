"""The estimate by samples of the prior, against the exact curve of a linear decoder."""

from __future__ import annotations

import math

import pytest
import torch

from gencomp.errors import InputError
from gencomp.rate_distortion import prior_sampling
from gencomp.rate_distortion.priors import Gaussian

BETAS = torch.tensor([0.0, 0.1, 0.5, 1.0], dtype=torch.float64)


def run(problem, samples: int, seed: int, batch: int = 1000, betas: torch.Tensor = BETAS):
    prior = Gaussian(problem.weight_NK.shape[1])
    weight_NK, bias_N, x_IN = (t.float() for t in (problem.weight_NK, problem.bias_N, problem.x_IN))
    return prior_sampling.estimate(
        *(lambda z_BK: z_BK @ weight_NK.T + bias_N, prior, x_IN, betas),
        samples=samples,
        seed=seed,
        batch=batch,
    )


def test_many_samples_give_the_exact_curve(toy):
    """20 seeds of 10,000 samples: each mean lies within 5 of its standard errors, which by chance
    one of these 24 misses with a probability of 2 in 100,000 × 24."""
    exact = toy.exact(BETAS)
    found = [run(toy, 10_000, seed) for seed in range(20)]
    for name in ("log_z_IT", "rate_IT", "distortion_IT"):
        values = torch.stack([getattr(one, name) for one in found])
        error = values.std(0) / math.sqrt(len(found))
        # The bias of log Ẑ is half the variance of the mean weight, below a hundredth of its error.
        assert ((values.mean(0) - getattr(exact, name)).abs() <= 5 * error + 1e-5).all(), name


def test_a_lagrangian_of_few_samples_is_too_high_and_falls_with_their_number(surrogate):
    problem = surrogate(10, 4)
    beta = torch.tensor([1.0], dtype=torch.float64)
    exact = -problem.exact([1.0]).log_z_IT.mean()
    means = [
        torch.stack([-run(problem, n, seed, betas=beta).log_z_IT.mean() for seed in range(20)])
        for n in (10, 100, 1000)
    ]
    assert means[0].mean() > means[1].mean() > means[2].mean() > exact


def test_the_rate_never_exceeds_the_logarithm_of_the_number_of_samples(surrogate):
    problem = surrogate(10, 16)
    betas = torch.tensor([0.0, 1.0, 1e3, 1e6], dtype=torch.float64)
    found = run(problem, 50, seed=1, betas=betas)
    assert (found.rate_IT[:, 0].abs() < 1e-12).all() and (found.ess_IT[:, 0] - 50 < 1e-9).all()
    assert (found.rate_IT <= math.log(50) + 1e-9 * found.log_z_IT.abs()).all()
    # There is one sample that counts, the nearest, and its rate is all that the samples can show.
    torch.testing.assert_close(
        found.rate_IT[:, -1], torch.full((16,), math.log(50)).double(), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(found.ess_IT[:, -1], torch.ones(16).double())


@pytest.mark.parametrize("batch", [1, 7, 100, 1000])
def test_batches_do_not_matter(toy, batch):
    expected, found = run(toy, 100, seed=3), run(toy, 100, seed=3, batch=batch)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("samples", "beta"), [(0, 1.0), (10, -1.0)])
def test_what_is_refused(toy, samples, beta):
    with pytest.raises(InputError, match="at least one sample, and inverse"):
        run(toy, samples, seed=1, betas=torch.tensor([beta]))
