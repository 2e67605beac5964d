"""The figure of distortion against shared bits: what stands where, and the closed form."""

from __future__ import annotations

import math

import pytest

from gencomp.errors import InputError
from gencomp.evaluation.measured import Measured
from gencomp.figures.shared_bits import Budget, Curves, draw
from gencomp.figures.style import encode
from gencomp.rate_distortion.perception import correlation


def curves(levels: int = 2, rate: float | None = 4.755) -> Curves:
    budgets = [
        Budget(0, [None, Measured(0.06, (0.059, 0.061))][:levels]),
        Budget(2, [Measured(0.08), Measured(0.055, (0.054, 0.056))][:levels]),
        Budget(math.inf, [Measured(0.064), Measured(0.05)][:levels]),
    ]
    return Curves((1.0, 2.0)[:levels], budgets, 9, rate, 3)


def test_points_ratios_and_the_closed_form() -> None:
    figure = draw(curves(), "mse_unit", "critic_distance", "title")
    left, right = figure.axes
    drawn = [container.lines[0] for container in left.containers]
    assert [list(line.get_xdata()) for line in drawn] == [[1, 2], [0, 1, 2]]
    assert [list(line.get_ydata()) for line in drawn] == [[0.08, 0.064], [0.06, 0.055, 0.05]]
    ratios = [container.lines[0] for container in right.containers]
    assert list(ratios[1].get_ydata()) == pytest.approx([1.2, 1.1, 1.0])
    (dashed,) = [line for line in right.lines if line.get_label() == "Gaussian, P = 0"]
    assert dashed.get_ydata()[0] == pytest.approx(1 + correlation(4.755 / 3))
    assert dashed.get_ydata()[-1] == 1
    ticks = [text.get_text() for text in right.get_xticklabels()]
    assert ticks == ["0", "2", "unlimited"]
    assert "Gaussian of 3 values at 4.755 bits" in " ".join(
        text.get_text() for text in figure.texts
    )
    assert encode(figure, "png") == encode(figure, "png")


def test_a_method_that_says_nothing_of_its_symbols_has_no_closed_form() -> None:
    _, right = draw(curves(rate=None), "mse_unit", "critic_distance", "title").axes
    assert [line.get_label() for line in right.lines if "Gaussian" in str(line.get_label())] == []


def test_too_many_perceptions_are_refused() -> None:
    many = Curves(tuple(range(7)), [Budget(0, [None] * 7)], 1, None, 0)
    with pytest.raises(InputError, match="one to 6 perceptions, not 7"):
        draw(many, "mse_unit", "critic_distance", "title")
