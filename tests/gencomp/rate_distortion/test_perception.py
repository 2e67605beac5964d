"""The closed forms against tabulated values, their own inverses, brute force and a simulation."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gencomp.errors import InputError
from gencomp.rate_distortion import perception

RATES = [
    ((0.10, 0), 1.679227),
    ((0.25, 0), 1.046555),
    ((0.50, 0), 0.596323),
    ((1.00, 0), 0.207519),
    ((1.50, 0), 0.046555),
    ((0.25, 0.01), 1.003213),
    ((0.50, 0.04), 0.511131),
    ((0.75, 0.09), 0.236352),
    ((1.00, 0.25), 0.046555),
]
DISTORTIONS = [
    ((0.5, 0), 0.585786),
    ((0.5, 0.01), 0.537208),
    ((0.5, 0.04), 0.508629),
    ((0.5, 0.09), 0.5),
    ((1, 0), 0.267949),
    ((1, 0.01), 0.251154),
    ((1, 0.04), 0.25),
    ((2, 0), 0.063508),
    ((4, 0), 0.00391),
]
DITHERED = [
    (0.5, 3.061969, 0.020408, 0.020513, 0.254614),
    (1, 2.104833, 0.076923, 0.078462, 0.254613),
    (2, 1.254427, 0.25, 0.267949, 0.254427),
]
BITS = st.floats(0.05, 5)
BOUNDS = st.floats(0, 0.9)


@pytest.mark.parametrize(("point", "rate"), RATES)
def test_rates(point, rate):
    assert perception.gaussian_rate(*point) == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize(("point", "distortion"), DISTORTIONS)
def test_distortions(point, distortion):
    assert perception.gaussian_distortion(*point) == pytest.approx(distortion, abs=1e-6)


@pytest.mark.parametrize(
    ("rate", "bound"), [(0.25, 0.210501), (0.5, 0.085786), (1, 0.017949), (2, 0.001008)]
)
def test_bounds_beyond_which_perception_costs_nothing(rate, bound):
    assert perception.active_perception(rate) == pytest.approx(bound, abs=1e-6)
    least = 2 ** (-2 * rate)
    assert perception.gaussian_distortion(rate, 1.001 * bound) == pytest.approx(least, abs=1e-12)
    assert perception.gaussian_distortion(rate, 0.99 * bound) > least


@given(BITS, BOUNDS)
def test_rate_inverts_distortion(rate, bound):
    distortion = perception.gaussian_distortion(rate, bound)
    assert perception.gaussian_rate(distortion, bound) == pytest.approx(rate, abs=1e-10)


@given(BITS, BOUNDS, st.floats(0.1, 10))
def test_distortion_scales_with_the_variance(rate, bound, sigma):
    scaled = perception.gaussian_distortion(rate, sigma**2 * bound, sigma)
    expected = sigma**2 * perception.gaussian_distortion(rate, bound)
    assert scaled == pytest.approx(expected, rel=1e-9)


@given(BITS, BOUNDS)
def test_distortion_decomposes(rate, bound):
    distance = 1 - perception.correlation(rate)
    decomposed = perception.interpolated_distortion(2 ** (-2 * rate), distance, bound)
    assert perception.gaussian_distortion(rate, bound) == pytest.approx(decomposed, abs=1e-12)


@given(st.floats(0.01, 1.9), st.floats(0.01, 1.9), BOUNDS, BOUNDS)
def test_rate_falls_in_distortion_and_in_perception(a, b, p, q):
    rate = perception.gaussian_rate
    assert rate(max(a, b), p) <= rate(min(a, b), p) + 1e-12
    assert rate(a, max(p, q)) <= rate(a, min(p, q)) + 1e-12


@pytest.mark.parametrize("rate", [0.5, 1, 2])
@pytest.mark.parametrize("bound", [0, 0.01, 0.2])
def test_no_other_gaussian_reconstruction_is_better(rate, bound):
    """A search over the scale s and the correlation r of all Gaussians that the rate allows."""
    scales = np.arange(1, 2001) / 1000
    allowed = scales[(1 - scales) ** 2 <= bound + 1e-12]
    r = np.linspace(0, perception.correlation(rate), 501)
    errors = 1 + allowed[:, None] ** 2 - 2 * allowed[:, None] * r
    assert errors.min() == pytest.approx(perception.gaussian_distortion(rate, bound), abs=1e-5)
    assert errors.min() >= perception.gaussian_distortion(rate, bound) - 1e-12


class TestSharedRandomness:
    def test_ends(self):
        for rate in (0.5, 1, 3):
            none = perception.limited_randomness_distortion(rate, 0)
            assert none == pytest.approx(2 * 2 ** (-2 * rate), abs=1e-12)
            unlimited = perception.limited_randomness_distortion(rate, math.inf)
            assert unlimited == pytest.approx(perception.gaussian_distortion(rate, 0), abs=1e-12)

    @given(BITS, st.floats(0, 8), st.floats(0, 8))
    def test_more_of_it_never_costs(self, rate, a, b):
        distortion = perception.limited_randomness_distortion
        assert distortion(rate, max(a, b)) <= distortion(rate, min(a, b)) + 1e-12

    def test_the_factor_falls_from_1_plus_rho_to_1(self):
        factor = perception.shared_randomness_factor
        rho = perception.correlation(4.755 / 3)
        assert factor(4.755, 0, values=3) == pytest.approx(1 + rho, abs=1e-12)
        assert factor(4.755, math.inf, values=3) == 1
        # Bits that are spread over more values do less for each of them.
        assert 1 < factor(2, 1) < factor(6, 1, values=3) < factor(2, 0)


class TestMixtures:
    def value(self, points, bound):
        one = perception.best_mixture(points, bound)
        ends = points[one.first][0], points[one.second][0]
        return ends[0] + one.share * (ends[1] - ends[0])

    def test_the_lower_hull(self):
        """It is a chord between its ends, and gains nothing beyond its least distortion."""
        points = [(1.0, 4.0), (2.9, 3.0), (2.0, 2.0), (4.0, 1.0)]
        for bound, expected in ((9, 1.0), (4, 1.0), (3, 1.5), (2, 2.0), (1.5, 3.0), (1, 4.0)):
            assert self.value(points, bound) == pytest.approx(expected)
        assert perception.best_mixture(points, 0.9) is None

    @given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6))
    def test_a_looser_bound_never_costs(self, points):
        bounds = [
            bound for bound in np.linspace(0, 1.2, 13) if perception.best_mixture(points, bound)
        ]
        values = [self.value(points, bound) for bound in bounds]
        assert all(b <= a + 1e-12 for a, b in pairwise(values))


class TestDitheredCode:
    @pytest.mark.parametrize(("step", "rate", "least", "preserving", "excess"), DITHERED)
    def test_values(self, step, rate, least, preserving, excess):
        code = perception.dithered_gaussian(step)
        assert code == pytest.approx((rate, least, preserving), abs=1e-6)
        v = 1 + step**2 / 12
        assert code.rate - 0.5 * math.log2(12 * v / step**2) == pytest.approx(excess, abs=1e-6)

    @pytest.mark.parametrize(("step", "rate", "least", "preserving", "excess"), DITHERED)
    def test_one_code_read_by_two_decoders(self, step, rate, least, preserving, excess):
        """A simulation of 2 million samples; its standard error is below 0.15 % of each figure."""
        numbers = np.random.default_rng(11)
        x = numbers.standard_normal(2_000_000)
        u = numbers.uniform(-step / 2, step / 2, x.size)
        y = step * np.round((x + u) / step) - u
        v = 1 + step**2 / 12
        assert np.mean((x - y / v) ** 2) == pytest.approx(least, rel=0.01)
        assert np.mean((x - y / math.sqrt(v)) ** 2) == pytest.approx(preserving, rel=0.01)
        assert np.std(y / math.sqrt(v)) == pytest.approx(1, rel=0.005)

    @pytest.mark.parametrize("step", [0, -1.0, math.nan])
    def test_a_step_is_positive(self, step):
        with pytest.raises(InputError, match="must be positive"):
            perception.dithered_gaussian(step)


@pytest.mark.parametrize(
    ("levels", "bits"), [(2, 0.72135), (3, 1.36067), (4, 1.82541), (8, 2.9104)]
)
def test_entropy_of_a_symbol_given_the_dither(levels, bits):
    """The formula, and the exact cell probabilities averaged over 20,000 dithers."""
    assert perception.uniform_symbol_entropy(levels) == pytest.approx(bits, abs=1e-5)
    step = 2 / (levels - 1)
    u = (np.arange(20_000) + 0.5) / 20_000 * step - step / 2
    edges = np.clip(-1 + step * (np.arange(levels + 1) - 0.5) - u[:, None], -1, 1)
    p = np.diff(edges, axis=1) / 2
    entropy = -(p * np.log2(p, out=np.zeros_like(p), where=p > 0)).sum(1)
    assert entropy.mean() == pytest.approx(bits, abs=1e-3)


class TestCriticBias:
    def test_a_shift_of_five_is_reported_as_six_and_a_quarter(self):
        assert perception.unpenalised_gap(6.25, 10) == pytest.approx(5, abs=1e-12)

    @given(st.floats(0.001, 100), st.floats(0.1, 100))
    def test_inverts_the_bias(self, shift, weight):
        gap = shift * (1 + shift / (2 * weight))
        assert perception.unpenalised_gap(gap, weight) == pytest.approx(shift, rel=1e-6)

    def test_an_untrained_critic_keeps_its_sign(self):
        assert perception.unpenalised_gap(-0.3, 10) == -0.3
