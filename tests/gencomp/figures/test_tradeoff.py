"""The figure of distortion and perception: what is drawn where, and what joins what."""

from __future__ import annotations

import pytest

from gencomp.errors import InputError
from gencomp.figures.style import GRID, encode
from gencomp.figures.tradeoff import Point, draw, draw_gaussian
from gencomp.rate_distortion import perception


def point(name: str, x: float, y: float, series: str = "a", bases: tuple[str, ...] = ()) -> Point:
    return Point(series, x, y, (x - 0.01, x + 0.02), None, f"λ {name}", name, bases)


def test_points_lines_and_bars() -> None:
    points = [
        point("0", 0.05, 2.0),
        point("1", 0.06, 1.0),
        point("2", 0.07, 0.5, "b", bases=("0", "elsewhere")),
    ]
    figure = draw(points, "mse_unit", "critic_distance", "title", ["remark"])
    (axes,) = figure.axes
    joins = [line for line in axes.lines if line.get_color() == GRID]
    assert [list(line.get_xdata()) for line in joins] == [[0.05, 0.07]]
    assert [list(line.get_ydata()) for line in joins] == [[2.0, 0.5]]
    assert axes.get_xlabel() == "distortion: mse_unit\n(pixels on [0, 1])"
    assert "critic_distance" in axes.get_ylabel()
    assert [text.get_text() for text in axes.texts] == ["λ 0", "λ 1", "λ 2"]
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert legend == {"a", "b"}
    assert encode(figure, "png") == encode(figure, "png")


def test_too_many_kinds_are_refused() -> None:
    with pytest.raises(InputError, match="7 kinds of runs are too many"):
        draw([point(str(i), i, i, str(i)) for i in range(7)], "x", "y", "title", [])


def test_the_gaussian_s_ends_are_those_of_the_closed_form() -> None:
    (axes,) = draw_gaussian([0.5, 1], "title").axes
    curves = [line for line in axes.lines if len(line.get_xdata()) > 2]
    assert len(curves) == 2
    for curve, rate in zip(curves, (0.5, 1), strict=True):
        assert curve.get_ydata()[0] == pytest.approx(perception.gaussian_distortion(rate, 0))
        assert curve.get_ydata()[-1] == pytest.approx(2 ** (-2 * rate))
