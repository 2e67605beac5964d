"""Curves: what is drawn is what was measured, and only what was measured in the same way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from gencomp.errors import InputError
from gencomp.evaluation.psnr import psnr
from gencomp.figures.curves import Panel, Point, draw, require_one_protocol

PROTOCOL = {"data": "abc", "split": "test", "images": "all 922 images"}


def point(series: str, bpp: float, value: float) -> Point:
    interval = (value * 0.9, value * 1.2)
    return Point(series, bpp, value, interval, f"{series} at {bpp}", PROTOCOL)


def panel(metric: str = "mse") -> Panel:
    rates = (0.125, 0.0078125, 0.03125)
    points = [
        point(name, bpp, 0.1 / (n + 1) / (1 + bpp)) for n, name in enumerate("ab") for bpp in rates
    ]
    return Panel(metric, points)


def drawn(*panels: Panel) -> Figure:
    figure = draw(panels, "Rate, distortion", ["photos, test split, all 922 images"])
    FigureCanvasAgg(figure).draw()
    return figure


def test_a_series_is_drawn_by_increasing_rate_with_its_interval() -> None:
    axes = drawn(panel()).axes[0]
    container, _ = axes.containers
    assert isinstance(container, ErrorbarContainer)
    line, _, bars = container.lines
    assert line is not None
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    assert list(x) == [0.0078125, 0.03125, 0.125]
    np.testing.assert_allclose(y, [0.1 / (1 + bpp) for bpp in x])
    ends = np.array([segment[:, 1] for segment in bars[0].get_segments()])
    np.testing.assert_allclose(ends, np.stack([y * 0.9, y * 1.2], axis=1))


def test_psnr_stands_exactly_beside_mse() -> None:
    left, right = drawn(panel()).axes
    for mse in (0.05, 0.08):
        at = left.transData.transform((0.03125, mse))[1]
        assert right.transData.inverted().transform((0, at))[1] == pytest.approx(psnr(mse))


def test_the_rates_are_the_ticks_and_zero_has_a_place() -> None:
    with_zero = Panel("mse", [*panel().points, point("a", 0.0, 0.4)])
    axes = drawn(with_zero).axes[0]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["0", "0.00781", "0.0312", "0.125"]
    places = [axes.transData.transform((x, 0.1))[0] for x in (0, 0.0078125, 0.03125, 0.125)]
    assert (np.diff(places) > 20).all()


def test_nothing_lies_over_anything() -> None:
    panels = [panel("mse"), panel("mmd"), panel("pv"), panel("rfid")]
    figure = drawn(*panels)
    (legend,) = figure.legends
    box = legend.get_window_extent()
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [text.get_window_extent() for text in figure.texts]
    for axes in figure.axes:
        around = axes.get_tightbbox(renderer)
        assert around is not None and not around.overlaps(box)
        assert not any(around.overlaps(text) for text in texts)
        assert around.x0 >= 0 and around.x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("data", "def", "data is abc of the first and def of the second"),
        ("split", "train", "split is test of the first and train of the second"),
        ("images", "100 of 922 images, first", "images is all 922 images of the first and 100 of"),
        ("feature network", "123", "feature network is None of the first and 123 of the second"),
    ],
)
def test_points_of_different_protocols_are_refused(key: str, value: str, said: str) -> None:
    stranger = replace(point("b", 0.5, 0.1), protocol={**PROTOCOL, key: value})
    mixed = Panel("rfid", [*panel().points, stranger])
    with pytest.raises(InputError, match=said) as refusal:
        require_one_protocol(mixed)
    assert "a at 0.125" in str(refusal.value) and "b at 0.5" in str(refusal.value)
    with pytest.raises(InputError):
        draw([panel(), mixed], "", [])


def test_more_series_than_colours_are_refused() -> None:
    points = [point(name, 0.1, 1.0) for name in "abcdefg"]
    with pytest.raises(InputError, match="7 series"):
        draw([Panel("mse", points)], "", [])


def test_series_look_the_same_in_all_panels() -> None:
    only_b = Panel("pv", [p for p in panel().points if p.series == "b"])
    first, second, _ = drawn(panel(), only_b).axes
    colours = []
    for container in (first.containers[1], second.containers[0]):
        assert isinstance(container, ErrorbarContainer) and container.lines[0] is not None
        colours.append(container.lines[0].get_color())
    assert colours[0] == colours[1]
