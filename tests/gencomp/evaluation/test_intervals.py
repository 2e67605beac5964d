"""Intervals: their coverage, measured, and what is done where the error is unknown."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from gencomp.evaluation import intervals
from gencomp.figures.rate_distortion import distortion_interval

REPEATS = 2000
Draw = Callable[[np.random.Generator, int], np.ndarray]


def lognormal(sigma: float) -> Draw:
    return lambda numbers, count: numbers.lognormal(0, sigma, count)


def coverage(draw: Draw, mean: float, count: int) -> float:
    numbers = np.random.default_rng(count)
    covered = 0
    for _ in range(REPEATS):
        ends = intervals.of_mean(draw(numbers, count))
        assert ends is not None
        covered += ends[0] <= mean <= ends[1]
    return covered / REPEATS


@pytest.mark.parametrize(
    "name, draw, mean, least",
    [
        ("normal", lambda numbers, count: numbers.normal(3, 2, count), 3.0, (0.95,) * 4),
        ("lognormal 0.5", lognormal(0.5), math.exp(0.125), (0.921, 0.935, 0.943, 0.945)),
        ("lognormal 1", lognormal(1.0), math.exp(0.5), (0.867, 0.899, 0.917, 0.929)),
        (
            "the other tail",
            lambda numbers, count: -numbers.lognormal(0, 1, count),
            -math.exp(0.5),
            (0.867, 0.899, 0.917, 0.929),
        ),
    ],
)
def test_the_coverage_of_means(
    name: str, draw: Draw, mean: float, least: tuple[float, ...]
) -> None:
    """It is at least what 4,000 other repeats gave, and near 0.95 for normal values.

    The sizes are n = 4, 8, 16, 64. The bound lies 4 standard errors of these 2,000 repeats below
    and, for normal values, above that: it fails for one seed in 30,000. The percentile bootstrap
    fails it at 4 and 8 (0.80 and 0.88 of normal values).
    """
    for count, expected in zip((4, 8, 16, 64), least, strict=True):
        error = math.sqrt(expected * (1 - expected) / REPEATS)
        found = coverage(draw, mean, count)
        assert found > expected - 4 * error, (name, count)
        if name == "normal":
            assert found < expected + 4 * error, count


def test_the_coverage_of_a_rate_distortion_curve() -> None:
    """The curve of a skewed population lies in the band at each of three rates.

    The curve of image i is that of a Gaussian with the lognormal variance s: -log Z = log(1 + 2βs)
    for 2 dimensions. The bounds lie 4 standard errors of 1,000 repeats below what 1,500 others
    gave; one seed in 5,000 fails. The percentile bootstrap covers 0.77 at n = 4 and 0.92 at 16.
    """
    beta_T = np.geomspace(0.05, 200, 400)
    nodes_Q, weights_Q = np.polynomial.hermite_e.hermegauss(60)
    spread_Q = np.exp(0.7 * nodes_Q)
    weights_Q = weights_Q / weights_Q.sum()
    total_T = np.log1p(2 * beta_T[:, None] * spread_Q) @ weights_Q
    at = np.array([100, 200, 300])
    beta_P = beta_T[at]
    numbers = np.random.default_rng(0)
    for count, least in ((4, 0.92), (16, 0.95)):
        covered = np.zeros(3)
        for _ in range(1000):
            s_I1 = numbers.lognormal(0, 0.7, count)[:, None]
            total_IP = np.log1p(2 * beta_P * s_I1)
            distortion_P = (2 * s_I1 / (1 + 2 * beta_P * s_I1)).mean(0)
            rate_P = total_IP.mean(0) - beta_P * distortion_P
            ends = np.array([intervals.of_mean(column) for column in total_IP.T]).T
            low_P, high_P = distortion_interval(beta_P, distortion_P, total_IP.mean(0), ends)
            # The population's curve at this rate, as the envelope of its tangents.
            true_P = ((total_T[:, None] - rate_P) / beta_T[:, None]).max(0)
            covered += (low_P <= true_P) & (true_P <= high_P)
        error = math.sqrt(least * (1 - least) / 1000)
        assert (covered / 1000 > least - 4 * error).all(), (count, covered)


def test_without_skewness_it_is_the_interval_of_student() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    expected = stats.t.interval(0.95, 4, loc=3, scale=stats.sem(values))
    assert intervals.of_mean(values) == pytest.approx(expected)
    assert intervals.of_estimate(3.0, stats.sem(values), 4) == pytest.approx(expected)


def test_the_ends_solve_the_equation() -> None:
    values = np.random.default_rng(1).lognormal(size=9)
    ends = intervals.of_mean(values)
    assert ends is not None and ends[0] < values.mean() < ends[1]
    gamma = stats.skew(values) / 3
    errors = (values.mean() - np.array(ends)) / stats.sem(values)
    found = errors + gamma / 3 * errors**2 + gamma**2 / 27 * errors**3 + gamma / 6
    t = stats.t.ppf(0.975, 8)
    assert found == pytest.approx([t, -t])


def test_the_sum_of_the_means_of_two_samples() -> None:
    """It is the interval of Welch for values without skewness."""
    one, two = np.arange(5.0), -np.arange(0.0, 30, 3)
    welch = stats.ttest_ind(one, -two, equal_var=False).confidence_interval()
    assert intervals.of_mean(one, two) == pytest.approx((welch.low, welch.high))


def test_where_the_error_is_unknown_there_is_no_interval() -> None:
    assert intervals.of_mean(np.array([2.0])) is None
    assert intervals.of_mean(np.arange(4.0), np.array([2.0])) is None
    assert intervals.of_mean(np.array([2.0, math.inf, 3.0])) is None
    assert intervals.of_estimate(2.0, math.nan, 0) is None
    assert intervals.at_least(0.0, None) is None


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert intervals.of_mean(np.full(4, 0.5)) == (0.5, 0.5)


def test_an_error_cannot_be_negative() -> None:
    ends = intervals.of_mean(np.array([0.1, 3.0]))
    assert ends is not None and ends[0] < 0
    assert intervals.at_least(0.0, ends) == (0.0, ends[1])
