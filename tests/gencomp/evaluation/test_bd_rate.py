"""The delta rate: exact for shifted copies, over the common range, and against one cubic."""

from __future__ import annotations

import numpy as np
import pytest

from gencomp.errors import InputError
from gencomp.evaluation.bd_rate import bd_rate

RATES = [0.1, 0.2, 0.45, 0.8, 1.3]
QUALITIES = [27.0, 29.4, 32.1, 34.6, 36.9]


def test_a_curve_at_a_multiple_of_the_rate() -> None:
    found = bd_rate([0.8 * rate for rate in RATES], QUALITIES, RATES, QUALITIES)
    assert found is not None
    assert found.percent == pytest.approx(-20, abs=1e-9)
    assert (found.low, found.high) == (27.0, 36.9)
    back = bd_rate(RATES, QUALITIES, [0.8 * rate for rate in RATES], QUALITIES)
    assert back is not None and back.percent == pytest.approx(25, abs=1e-9)


def test_the_common_range_alone_counts() -> None:
    """Rates that are exponential in quality are interpolated exactly by any of the methods."""
    own = np.linspace(30, 40, 5)
    other = np.linspace(20, 34, 4)
    found = bd_rate(np.exp(own / 8), own, 0.5 * np.exp(other / 8), other)
    assert found is not None and (found.low, found.high) == (30, 34)
    assert found.percent == pytest.approx(100)


def test_order_and_points_that_are_beaten_do_not_matter() -> None:
    shuffled = [3, 0, 4, 2, 1]
    rates = [RATES[i] for i in shuffled] + [0.5]
    qualities = [QUALITIES[i] for i in shuffled] + [31.0]  # costs more than a better point
    found = bd_rate(rates, qualities, RATES, QUALITIES)
    assert found is not None and found.percent == pytest.approx(0, abs=1e-9)


def test_agrees_with_the_cubic_of_the_definition_on_four_smooth_points() -> None:
    """VCEG-M33 fits one cubic through four points; on smooth curves the two differ by little."""
    quality = np.array([28.0, 31.0, 34.0, 37.0])
    own, other = np.exp(0.21 * (quality - 40)), np.exp(0.19 * (quality - 39.5) + 0.001 * quality)
    cubic = [np.polyint(np.polyfit(quality, np.log(rate), 3)) for rate in (own, other)]
    areas = [np.polyval(one, 37) - np.polyval(one, 28) for one in cubic]
    expected = 100 * np.expm1((areas[0] - areas[1]) / 9)
    found = bd_rate(own, quality, other, quality)
    assert found is not None and found.percent == pytest.approx(expected, abs=0.05)


def test_curves_apart_and_too_few_points() -> None:
    assert bd_rate([0.1, 0.2], [20, 21], [0.1, 0.2], [30, 31]) is None
    assert bd_rate([0.1], [20], [0.1, 0.2], [19, 31]) is None
    assert bd_rate([0.1, 0.2], [20, 19], [0.1, 0.2], [19, 31]) is None
    with pytest.raises(InputError, match="rates above 0"):
        bd_rate([0.0, 0.2], [20, 21], [0.1, 0.2], [30, 31])
