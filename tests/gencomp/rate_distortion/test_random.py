"""Keyed numbers: fixed for ever, independent of neighbours, and of the right distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gencomp.errors import InputError
from gencomp.rate_distortion import random


def test_numbers_are_pinned():
    # a change here makes saved chains impossible to continue
    normals = random.normals(random.start_uniforms(7, [3], 1, 3))
    assert normals.ravel().tolist() == pytest.approx(
        [-0.044811945217110585, 0.5951714761734046, -1.6423954417775588], rel=1e-12
    )
    numbers = random.transition_numbers(7, [3], 5, 1, 1)
    got = [a.item() for a in numbers]
    expected = [0.948541331120402, -1.145608769801546, 0.13933156990156792, 0.9144851622124314]
    assert got == pytest.approx(expected, rel=1e-12)


def test_an_image_has_its_numbers_in_any_company():
    together = random.transition_numbers(7, [4, 9, 2], 5, chains=6, latent_dim=3)
    alone = random.transition_numbers(7, [9], 5, chains=6, latent_dim=3)
    for one, many in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one[0], many[1])


def test_a_chain_has_its_numbers_whatever_their_count():
    few = random.transition_numbers(7, [9], 5, chains=2, latent_dim=3)
    many = random.transition_numbers(7, [9], 5, chains=6, latent_dim=3)
    np.testing.assert_array_equal(few.momentum_IMK, many.momentum_IMK[:, :2])
    np.testing.assert_array_equal(few.accept_IM, many.accept_IM[:, :2])


def test_every_key_gives_other_numbers():
    base = (7, [9], 5)
    variants = [(8, [9], 5), (7, [10], 5), (7, [9], 6)]
    first = random.transition_numbers(*base, 4, 3).momentum_IMK
    others = [random.transition_numbers(*variant, 4, 3).momentum_IMK for variant in variants]
    others += [
        random.transition_numbers(*base, 4, 3, purpose=random.PURPOSE_REVERSE).momentum_IMK,
        random.normals(random.start_uniforms(7, [9], 4, 3)),
        random.simulation_normals(7, [9], 12),
    ]
    for other in others:
        assert not np.isin(other, first).any()
        first = np.append(first, other)


def test_streams_are_those_of_numpy():
    """One generator with exchanged keys gives what a generator for each key gives."""
    uniforms = random.start_uniforms(7, [9, 4], 2, 3)
    for image_id, got in zip([9, 4], uniforms, strict=True):
        words = np.random.Philox(counter=[0, 0, 0, 0], key=[7, image_id]).random_raw(6)
        np.testing.assert_array_equal(got.ravel(), ((words >> np.uint64(12)) + 0.5) * 2.0**-52)


def test_distribution():
    """Kolmogorov-Smirnov at 1e-3 each on fixed keys."""
    numbers = random.transition_numbers(11, range(200), 1, 32, 6)
    assert stats.kstest(numbers.momentum_IMK.ravel(), "norm").pvalue > 1e-3
    assert stats.kstest(numbers.jitter_IM.ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(numbers.accept_IM.ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(numbers.resample_I, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("seed", "ids", "words"),
    [(-1, [0], "seed -1"), (0, [2**63], "image id"), (0, [1, 5, 5], "image id 5 appears twice")],
)
def test_bad_keys(seed, ids, words):
    with pytest.raises(InputError, match=words):
        random.check_keys(seed, ids)
