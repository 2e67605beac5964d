"""Bins of latents: their masses, what they cost, and what is popped from them."""

from __future__ import annotations

import numpy as np
import pytest

from gencomp.coding import latent_bins, portable
from gencomp.coding.ans import Stack
from gencomp.coding.latent_model import Gaussian


@pytest.mark.parametrize("depth", range(2, 13))
def test_masses(depth: int) -> None:
    made = latent_bins.bins(depth)
    assert made.frequencies_L.sum() == 1 << 24 and made.frequencies_L.min() == 16
    assert (made.frequencies_L == 1 << 24 - depth).sum() == (1 << depth) - 2
    inside = (made.values_L[1:] > made.edges_E) & (made.values_L[:-1] < made.edges_E)
    assert inside.all() and len(made.values_L) == len(made.edges_E) + 1


@pytest.mark.parametrize("scale", [0.02, 0.1, 0.3, 0.7, 0.95])
def test_their_cost_is_small(scale: float) -> None:
    """Bins of an eighth of the posterior's width, in the middle, for means of all the prior."""
    mean_D = np.random.default_rng(0).standard_normal(2000) * np.sqrt(1 - scale**2)
    posterior = Gaussian(mean_D, np.full(2000, scale))
    depth = max(2, int(np.ceil(np.log2(8 * np.sqrt(2 * np.pi) / scale))))
    loss, _ = latent_bins.costs(posterior, latent_bins.bins(depth))
    assert -1e-3 < loss / 2000 < 0.025


def test_their_cost_is_that_of_the_formula() -> None:
    """It is (w/σ)⁴/576 in the middle of the prior, where bins have equal widths."""
    for scale, depth in ((0.1, 5), (0.05, 6), (0.02, 7)):
        width = np.sqrt(2 * np.pi) * 2.0**-depth
        mean_D = width * (np.arange(400) + 0.5) / 400 - width / 2
        loss, _ = latent_bins.costs(Gaussian(mean_D, np.full(400, scale)), latent_bins.bins(depth))
        assert loss / 400 == pytest.approx((width / scale) ** 4 / 576, rel=0.1)


def test_posteriors_in_the_tail_find_their_bin() -> None:
    """A posterior at 4.5 prior scales is not cut off at the quantile of 2^-p."""
    posterior = Gaussian(np.array([4.5, -4.5]), np.array([0.1, 0.1]))
    for depth in (2, 12):
        loss, _ = latent_bins.costs(posterior, latent_bins.bins(depth))
        assert loss < 12


def test_a_sample_has_the_posteriors_masses() -> None:
    """Chi-squared of 20,000 samples; 6 deviations are exceeded in fewer than 1e-5 of seeds."""
    count, depth = 20_000, 3
    posterior = Gaussian(np.full(count, 0.4), np.full(count, 0.5))
    made = latent_bins.bins(depth)
    places_D = latent_bins.pop(Stack(), posterior, made)
    expected_L = count * np.diff(
        portable.normal_cdf((made.edges_E - 0.4) / 0.5), prepend=0, append=1
    )
    common = expected_L > 5
    seen_L = np.bincount(places_D, minlength=len(expected_L))
    chi = ((seen_L - expected_L)[common] ** 2 / expected_L[common]).sum()
    assert chi < common.sum() + 6 * np.sqrt(2 * common.sum())
