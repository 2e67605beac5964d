"""The deltas: exact for shifted copies, over the common range, and against one cubic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gencomp.errors import InputError
from gencomp.evaluation.bjontegaard import NotComparable, bd_quality, bd_rate

RATES = [0.1, 0.2, 0.45, 0.8, 1.3]
QUALITIES = [27.0, 29.4, 32.1, 34.6, 36.9]


def test_a_curve_at_a_multiple_of_the_rate() -> None:
    found = bd_rate([0.8 * rate for rate in RATES], QUALITIES, RATES, QUALITIES)
    assert found.percent == pytest.approx(-20, abs=1e-9)
    assert (found.low, found.high) == (27.0, 36.9)
    back = bd_rate(RATES, QUALITIES, [0.8 * rate for rate in RATES], QUALITIES)
    assert back.percent == pytest.approx(25, abs=1e-9)


def test_the_common_range_alone_counts() -> None:
    """Rates that are exponential in quality are interpolated exactly by any of the methods."""
    own = np.linspace(30, 40, 5)
    other = np.linspace(20, 34, 4)
    found = bd_rate(np.exp(own / 8), own, 0.5 * np.exp(other / 8), other)
    assert (found.low, found.high) == (30, 34)
    assert found.percent == pytest.approx(100)


def test_order_and_points_that_are_beaten_do_not_matter() -> None:
    shuffled = [3, 0, 4, 2, 1]
    rates = [RATES[i] for i in shuffled] + [0.5]
    qualities = [QUALITIES[i] for i in shuffled] + [31.0]  # costs more than a better point
    found = bd_rate(rates, qualities, RATES, QUALITIES)
    assert found.percent == pytest.approx(0, abs=1e-9)


def test_agrees_with_the_cubic_of_the_definition_on_four_smooth_points() -> None:
    """VCEG-M33 fits one cubic through four points; on smooth curves the two differ by little."""
    quality = np.array([28.0, 31.0, 34.0, 37.0])
    own, other = np.exp(0.21 * (quality - 40)), np.exp(0.19 * (quality - 39.5) + 0.001 * quality)
    cubic = [np.polyint(np.polyfit(quality, np.log(rate), 3)) for rate in (own, other)]
    areas = [np.polyval(one, 37) - np.polyval(one, 28) for one in cubic]
    expected = 100 * np.expm1((areas[0] - areas[1]) / 9)
    found = bd_rate(own, quality, other, quality)
    assert found.percent == pytest.approx(expected, abs=0.05)


def test_a_shifted_copy_is_better_by_the_shift() -> None:
    found = bd_quality(RATES, [quality + 0.75 for quality in QUALITIES], RATES, QUALITIES)
    assert found.difference == pytest.approx(0.75, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((0.1, 1.3))


def test_parallel_lines_in_log_rate_have_both_deltas_in_closed_form() -> None:
    """Q = 6 log2 R + c: 3 dB more at equal rate are a factor of 2^(-1/2) in rate."""
    own_R, other_R = np.array([0.25, 1.0, 2.0]), np.array([0.1, 0.5, 0.8])
    own_Q, other_Q = 6 * np.log2(own_R) + 33, 6 * np.log2(other_R) + 30
    quality = bd_quality(own_R, own_Q, other_R, other_Q)
    assert quality.difference == pytest.approx(3)
    assert (quality.low, quality.high) == pytest.approx((0.25, 0.8))
    rate = bd_rate(own_R, own_Q, other_R, other_Q)
    assert rate.percent == pytest.approx(100 * (2**-0.5 - 1))
    assert (rate.low, rate.high) == pytest.approx((own_Q[0], other_Q[-1]))


def test_a_line_and_another_slope_differ_by_the_middle_of_the_range() -> None:
    rates = np.exp([0.0, 1.0, 2.0])
    found = bd_quality(rates, [30.0, 31.0, 32.0], rates, [30.0, 33.0, 36.0])
    assert found.difference == pytest.approx(-2)  # the mean of 0, −2 and −4


@pytest.mark.parametrize("delta", [bd_rate, bd_quality])
@pytest.mark.parametrize(
    ("points", "said"),
    [
        (([0.1], [20]), "single point"),
        (([0.1, 0.2], [20, 19]), "single point"),
        (([10, 20], [90, 91]), "in common"),
    ],
)
def test_curves_that_do_not_compare_are_refused(
    delta: Callable[..., object], points: tuple[list[float], list[float]], said: str
) -> None:
    with pytest.raises(NotComparable, match=said):
        delta(*points, [0.1, 0.2], [19, 31])


@pytest.mark.parametrize("delta", [bd_rate, bd_quality])
def test_rates_are_above_0(delta: Callable[..., object]) -> None:
    with pytest.raises(InputError, match="rates above 0"):
        delta([0.0, 0.2], [20, 21], [0.1, 0.2], [30, 31])
