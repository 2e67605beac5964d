"""The Gaussian formulas against closed numbers, against each other, and by quadrature."""

from __future__ import annotations

import numpy as np
import pytest

from gencomp.coding.relative_entropy import auxiliary
from gencomp.coding.relative_entropy.auxiliary import Floats

MEAN, SCALE = np.array([1.5]), np.array([0.3])


def target_given_sum(
    mean: Floats, scale: Floats, time: Floats | float, b: Floats
) -> tuple[Floats, Floats]:
    """The mean and the variance of x under the target, given its partial sum b."""
    denominator = scale**2 * time + (1 - time)
    return (
        (b * scale**2 + mean * (1 - time)) / denominator,
        scale**2 * (1 - time) / denominator,
    )


def log_weight(mean: Floats, scale: Floats, time: Floats | float, b: Floats) -> Floats:
    """The logarithm of q(b)/p(b) of a partial sum b."""
    linear, square = auxiliary.coefficients(mean, scale, time)
    centre, variance = auxiliary.target_of_sum(mean, scale, time)
    return linear * b + square * b**2 + np.log(time / variance) / 2 - centre**2 / (2 * variance)


def test_conditionals() -> None:
    centre, variance = auxiliary.target_of_sum(MEAN, SCALE, 0.4)
    assert (centre[0], variance[0]) == pytest.approx((0.6, 0.2544), abs=1e-12)
    centre, variance = target_given_sum(MEAN, SCALE, 0.4, np.array([0.5]))
    assert (centre[0], variance[0]) == pytest.approx((1.485849, 0.084906), abs=1e-6)


def test_total_variance() -> None:
    """Var x = Var E[x|b] + E Var[x|b], and the same for the mean."""
    for time in (0.01, 0.4, 0.999, 1.0):
        _, of_sum = auxiliary.target_of_sum(MEAN, SCALE, time)
        at_0, within = target_given_sum(MEAN, SCALE, time, np.zeros(1))
        at_1, _ = target_given_sum(MEAN, SCALE, time, np.ones(1))
        assert of_sum * (at_1 - at_0) ** 2 + within == pytest.approx(SCALE**2, abs=1e-9)
        assert at_0 + (at_1 - at_0) * MEAN * time == pytest.approx(MEAN, abs=1e-9)


def test_log_weight_is_the_ratio_of_densities() -> None:
    generator = np.random.default_rng(0)
    mean_D, scale_D = generator.standard_normal(9), generator.uniform(0.05, 1.4, 9)
    b_D = generator.standard_normal(9)
    for time in (0.1, 0.7, 1.0):
        found = log_weight(mean_D, scale_D, time, b_D)
        centre, variance = auxiliary.target_of_sum(mean_D, scale_D, time)
        expected = (b_D**2 / time - (b_D - centre) ** 2 / variance - np.log(variance / time)) / 2
        assert found == pytest.approx(expected, abs=1e-9)


def test_the_weight_of_a_path_at_the_end_is_that_of_its_value() -> None:
    """Products of the weights of the pieces give q(x)/p(x), whatever the path."""
    generator = np.random.default_rng(1)
    mean_D, scale_D = generator.standard_normal(32), np.full(32, 0.3)
    times = np.cumsum(generator.dirichlet(np.ones(20)))
    times[-1] = 1
    b_D, log_ratio, before = np.zeros(32), 0.0, 0.0
    for time in times:
        part = time - before
        # The target of the piece, given the sum: x is N(c, u) by then, and the piece its share.
        centre, variance = (
            (mean_D, scale_D**2) if before == 0 else target_given_sum(mean_D, scale_D, before, b_D)
        )
        share = part / (1 - before)
        own_centre = (centre - b_D) * share
        own_variance = variance * share**2 + part * (1 - share)
        a_D = np.sqrt(part) * generator.standard_normal(32)
        log_q = -((a_D - own_centre) ** 2) / own_variance / 2 - np.log(own_variance) / 2
        log_ratio += float((log_q + a_D**2 / part / 2 + np.log(part) / 2).sum())
        b_D, before = b_D + a_D, time
    direct = (b_D**2 - ((b_D - mean_D) / scale_D) ** 2) / 2 - np.log(scale_D)
    assert log_ratio == pytest.approx(float(direct.sum()), abs=1e-8)
    at_the_end = log_weight(mean_D, scale_D, 1.0, b_D)
    assert float(at_the_end.sum()) == pytest.approx(float(direct.sum()), abs=1e-8)


def test_cumulative_kl_is_that_of_the_sums() -> None:
    mean_D, scale_D = np.array([0.3, -2.0, 0.0]), np.array([0.9, 0.05, 1.3])
    times = np.linspace(0.05, 1, 20)
    for time, found in zip(times, auxiliary.cumulative_kl(mean_D, scale_D, times), strict=True):
        centre, variance = auxiliary.target_of_sum(mean_D, scale_D, time)
        expected = (centre**2 / time + variance / time - 1 - np.log(variance / time)).sum() / 2
        assert found == pytest.approx(expected, abs=1e-9)
    assert auxiliary.kl(np.array([2.0]), np.array([0.05])) == pytest.approx(4.496982, abs=1e-6)


def test_rate_is_the_derivative() -> None:
    mean_D, scale_D = np.array([0.3, -2.0, 0.0]), np.array([0.9, 0.2, 1.3])
    times = np.linspace(0.05, 0.95, 10)
    above, below = (auxiliary.cumulative_kl(mean_D, scale_D, times + h) for h in (1e-5, -1e-5))
    slope = auxiliary.kl_rate(mean_D, scale_D, times)
    assert slope == pytest.approx((above - below) / 2e-5, rel=1e-6)
