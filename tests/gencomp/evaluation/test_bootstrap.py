"""Intervals: repeatable, and as wide as theory says."""

from __future__ import annotations

import numpy as np
import pytest

from gencomp.evaluation import bootstrap


def test_a_seed_gives_the_same_resamples() -> None:
    values = np.random.default_rng(0).normal(size=50)
    means = bootstrap.resampled_means(values, 3)
    assert np.array_equal(means, bootstrap.resampled_means(values, 3))
    assert not np.array_equal(means, bootstrap.resampled_means(values, 4))
    assert not np.array_equal(means, bootstrap.resampled_means(values, 3, stream=1))
    assert np.allclose(bootstrap.resampled_counts(50, 3) @ values / 50, means)


def test_the_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    values = np.random.default_rng(0).normal(5, 2, size=1000)
    low, high = bootstrap.interval(bootstrap.resampled_means(values, 1))
    error = values.std() / 1000**0.5
    assert (low, high) == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.25 * error
    )


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert bootstrap.interval(bootstrap.resampled_means(np.full(4, 0.5), 0)) == (
        0.5,
        0.5,
    )
