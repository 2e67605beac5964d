"""The sliced distance against closed forms and scipy, and its standard error by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from gencomp.evaluation.sliced_wasserstein import directions, distance


def test_directions_are_unit_vectors_of_a_seed():
    found = directions(50, seed=3, count=40)
    assert found.shape == (50, 40)
    assert np.linalg.norm(found, axis=0) == pytest.approx(1)
    assert np.array_equal(found, directions(50, seed=3, count=40))
    assert not np.allclose(found, directions(50, seed=4, count=40))


def test_one_direction_is_the_distance_of_the_line():
    numbers = np.random.default_rng(0)
    x, y = numbers.standard_normal((2, 300))
    y = 1.5 * y + 0.3
    expected = stats.wasserstein_distance(x, y)
    assert distance(x[:, None], y[:, None]).value == pytest.approx(expected, rel=1e-12)


def test_a_shift():
    """A shift v gives the mean of |v·θ|, over all directions |v|·Γ(d/2)/(√π·Γ((d+1)/2))."""
    size = 20
    numbers = np.random.default_rng(1)
    x = numbers.uniform(0, 1, (100, size))
    shift = numbers.standard_normal(size)
    theta = directions(size, seed=5, count=20_000)
    found = distance(x @ theta, (x + shift) @ theta).value
    expected = math.gamma(size / 2) / (math.sqrt(math.pi) * math.gamma((size + 1) / 2))
    # The standard error over 20,000 directions is 0.5 %.
    assert found == pytest.approx(np.linalg.norm(shift) * expected, rel=0.02)


def test_equal_sets_have_no_distance():
    x = np.random.default_rng(2).uniform(0, 1, (50, 7))
    found = distance(x, x[::-1])
    assert found.value == pytest.approx(0, abs=1e-12)
    assert found.influence_N == pytest.approx(0, abs=1e-12)


def test_influence_is_the_derivative():
    """Giving one pair a little more weight changes the distance by its influence.

    The sets are so far apart that their distribution functions meet nowhere between, where the
    distance would have a kink.
    """
    numbers = np.random.default_rng(3)
    x = numbers.standard_normal((40, 1))
    y = 0.8 * x + 0.3 * numbers.standard_normal((40, 1)) + 2
    found = distance(x, y)
    assert found.influence_N.mean() == pytest.approx(0, abs=1e-12)
    weight = 1e-6
    for place in (0, 7, 39):
        weights = np.full(40, 1 - weight) / 40
        weights[place] += weight
        moved = stats.wasserstein_distance(x[:, 0], y[:, 0], weights, weights)
        assert (moved - found.value) / weight == pytest.approx(found.influence_N[place], abs=1e-5)


def test_standard_error():
    """The spread over 200 repetitions is what the influence says; a 3 sigma band is 15 %."""
    numbers = np.random.default_rng(4)
    theta = directions(6, seed=0, count=32)
    values, errors = [], []
    for _ in range(200):
        x = numbers.standard_normal((200, 6))
        y = x + 0.5 * numbers.standard_normal((200, 6)) + 0.7
        found = distance(x @ theta, y @ theta)
        values.append(found.value)
        errors.append(found.influence_N.std(ddof=1) / math.sqrt(200))
    assert np.std(values, ddof=1) == pytest.approx(np.mean(errors), rel=0.15)
