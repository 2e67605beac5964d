"""Curves by AIS: what is drawn is what was measured, on exact axes, and can be read."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

from gencomp.errors import InputError
from gencomp.evaluation import intervals
from gencomp.figures import convergence
from gencomp.figures.convergence import Convergence
from gencomp.figures.rate_axes import DistortionName, Units
from gencomp.figures.rate_distortion import (
    DrawnCurve,
    Gap,
    ImageCurves,
    OperatingPoint,
    Variational,
    cut,
    distortion_interval,
    draw,
    draw_images,
)
from gencomp.figures.style import line_looks
from gencomp.rate_distortion.closed_form import linear_gaussian
from gencomp.rate_distortion.schedules import sigmoid

UNITS = Units("squared_error", values=48, pixels=16, value_range=(-1, 1))
BETAS = sigmoid(200.0, 201)[1::4]


def gap(beta: float, value: float, error: float) -> Gap:
    """A gap as it may be found near a β of two digits."""
    asked = float(f"{beta:.1g}")
    return Gap(beta, asked, value, error, (value - 1.5 * error, value + 2 * error))


GAPS = (gap(0.998, 0.003, 0.02), gap(10.0, 0.022, 0.049), gap(200.0, 0.149, 0.091))


@functools.cache
def images(latents: int = 6, count: int = 12) -> tuple[ImageCurves, np.ndarray]:
    """Exact curves of a linear decoder, and -log Z, [I, T]."""
    numbers = torch.Generator().manual_seed(latents)
    options = {"generator": numbers, "dtype": torch.float64}
    weight = torch.randn(48, latents, **options) / (1 + torch.arange(latents))
    x = torch.randn(count, 48, **options) * 0.5
    exact = linear_gaussian(weight, torch.zeros(48), x, torch.from_numpy(BETAS))
    rate, distortion = exact.rate_IT.numpy(), exact.distortion_IT.numpy()
    return ImageCurves(BETAS, rate, distortion), -exact.log_z_IT.numpy()


def curve(label: str = "VAE", latents: int = 6, gaps: tuple[Gap, ...] = ()) -> DrawnCurve:
    one, total_IT = images(latents)
    ends = np.array([intervals.of_mean(total_I) for total_I in total_IT.T]).T
    rate, distortion = one.rate_IT.mean(0), one.distortion_IT.mean(0)
    low, high = distortion_interval(BETAS, distortion, total_IT.mean(0), ends)
    return DrawnCurve(label, BETAS, rate, distortion, low, high, gaps)


def rendered(figure: Figure) -> Figure:
    FigureCanvasAgg(figure).draw()
    return figure


def lines(figure: Figure) -> list[Line2D]:
    return figure.axes[0].lines


def points(line: Line2D) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    return x, y


def test_a_curve_and_its_band_are_the_measured_values() -> None:
    one = curve()
    axes = rendered(draw([one], UNITS, "Curve", ["a line"])).axes[0]
    x, y = points(axes.lines[0])
    np.testing.assert_array_equal(x, one.distortion_T)
    np.testing.assert_array_equal(y, one.rate_T)
    (band,) = [part for part in axes.collections if isinstance(part, PolyCollection)]
    corners = {(float(a), float(b)) for a, b in band.get_paths()[0].vertices}
    for low, high, rate in zip(one.low_T, one.high_T, one.rate_T, strict=True):
        assert (low, rate) in corners and (high, rate) in corners


def test_a_curve_of_one_image_has_no_band() -> None:
    one = curve()
    unknown = np.full_like(one.low_T, np.nan)
    single = replace(one, low_T=unknown, high_T=unknown)
    axes = rendered(draw([single], UNITS, "Curve", [])).axes[0]
    x, _ = points(axes.lines[0])
    np.testing.assert_array_equal(x, one.distortion_T)
    (band,) = [part for part in axes.collections if isinstance(part, PolyCollection)]
    assert not band.get_paths()


def test_the_band_is_the_curve_of_images_that_are_as_much_harder() -> None:
    """A distortion d + c moves -log Z by βc, and the curve by c to the right at every rate."""
    one, total_IT = images()
    distortion_T, total_T = one.distortion_IT.mean(0), total_IT.mean(0)
    ends = np.stack([total_T - 0.25 * BETAS, total_T + 0.5 * BETAS])
    low_T, high_T = distortion_interval(BETAS, distortion_T, total_T, ends)
    np.testing.assert_allclose(low_T, distortion_T - 0.25)
    np.testing.assert_allclose(high_T, distortion_T + 0.5)


def test_other_units_stand_exactly_beside() -> None:
    left, right, top = rendered(draw([curve()], UNITS, "", [])).axes
    for nats in (0.01, 1, 20):
        at = left.transData.transform((1, nats))[1]
        bpp = right.transData.inverted().transform((0, at))[1]
        assert bpp == pytest.approx(nats / math.log(2) / 16)
    for summed in (3, 10):
        at = left.transData.transform((summed, 1))[0]
        assert top.transData.inverted().transform((at, 0))[0] == pytest.approx(summed / 48)
    assert left.get_xlabel() == "distortion: squared error, summed over 48 values on [−1, 1]"


@pytest.mark.parametrize("name", ["gaussian_likelihood", "features"])
def test_only_squared_errors_have_a_mean_per_value(name: DistortionName) -> None:
    figure = rendered(draw([curve()], replace(UNITS, distortion=name), "", []))
    assert len(figure.axes) == 2
    assert "squared error" not in figure.axes[0].get_xlabel()


def test_a_bracket_ends_as_far_below_the_curve_as_the_gap() -> None:
    gaps = (gap(BETAS[20], 0.4, 0.1), gap(BETAS[30], -0.1, 0.1), gap(BETAS[40], 1e6, 1.0))
    one = curve(gaps=gaps)
    figure = rendered(draw([one], UNITS, "", []))
    axes = figure.axes[0]
    drawn = [part for part in axes.collections if isinstance(part, LineCollection)]
    ends = [sorted(y for _, y in part.get_segments()[0]) for part in drawn]
    at = [float(one.rate_T[i]) for i in (20, 30, 40)]
    assert ends[0] == pytest.approx([at[0] - 0.4, at[0]])
    assert ends[1] == pytest.approx([at[1], at[1]])
    # A gap wider than the rate ends at the axis, which it does not stretch.
    assert ends[2] == pytest.approx([axes.get_ylim()[0], at[2]])
    assert axes.get_ylim()[0] == pytest.approx(
        rendered(draw([curve()], UNITS, "", [])).axes[0].get_ylim()[0]
    )
    written = [text.get_text() for text in axes.texts]
    assert written == ["0.4 (0.25 to 0.6)", "−0.1 (−0.25 to 0.1)", "1e+06 (1e+06 to 1e+06)"]
    (handle,) = [text for text in figure.legends[0].get_texts() if "BDMC" in text.get_text()]
    assert handle.get_text() == "BDMC gap on simulated images, nats (95 %)"


def test_a_gap_names_its_worst_image() -> None:
    assert str(gap(1.0, 0.4, 0.1)._replace(worst=2.345)) == "0.4 (0.25 to 0.6)\nworst image 2.35"


def test_a_bracket_between_reported_temperatures_lies_on_the_line() -> None:
    one = curve()
    beta = math.sqrt(BETAS[20] * BETAS[21])
    x, y = one.at(beta)
    assert x == pytest.approx((one.distortion_T[20] + one.distortion_T[21]) / 2)
    assert y == pytest.approx(math.sqrt(one.rate_T[20] * one.rate_T[21]))


@settings(max_examples=40)
@given(
    distortion=st.one_of(st.none(), st.floats(0, 50)), rate=st.one_of(st.none(), st.floats(0, 50))
)
def test_a_cut_keeps_from_the_point_closest_to_the_limit(
    distortion: float | None, rate: float | None
) -> None:
    one = curve(gaps=GAPS)
    kept = cut(one, distortion, rate)
    first = len(one.beta_T) - len(kept.beta_T)
    starts = [0]
    if distortion is not None:
        starts.append(int(np.argmin(abs(one.distortion_T - distortion))))
    if rate is not None:
        starts.append(int(np.argmin(abs(one.rate_T - rate))))
    assert first == max(starts)
    for name in ("beta_T", "rate_T", "distortion_T", "low_T", "high_T"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(one, name)[first:])
    assert [one for one in GAPS if one.beta >= BETAS[first] * (1 - 1e-9)] == kept.gaps


def test_rates_that_noise_makes_negative_are_left_out() -> None:
    one = curve()
    noisy = one.rate_T.copy()
    noisy[[0, 3]] = -1e-4, 0.0
    assert cut(replace(one, rate_T=noisy), None, None).beta_T[0] == BETAS[4]
    with pytest.raises(InputError, match="VAE has no positive rate at its last temperature"):
        cut(replace(one, rate_T=-noisy), None, None)


def test_everything_of_one_decoder_on_the_same_axes() -> None:
    one, other = curve("deep", 6), curve("wide", 9)
    trained = Variational(1, other.rate_T[::5] + 1, other.distortion_T[::5] + 1)
    codecs = [OperatingPoint("λ 10", r, d, (d - 0.5, d + 0.25)) for r, d in ((30, 6.0), (9, 8.0))]
    codecs.append(OperatingPoint("λ 0", 9, 7.0))
    figure = rendered(draw([one, other], UNITS, "", [], [trained], codecs))
    _, second, dotted, first_codec = lines(figure)[:4]
    assert dotted.get_color() == second.get_color()
    np.testing.assert_array_equal(points(dotted)[1], trained.rate_P)
    x, y = points(first_codec)
    assert (list(x), list(y)) == ([8.0, 6.0], [9, 30])
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["deep", "wide", "trained Gaussian encoder", "λ 10", "λ 0"]


@pytest.mark.parametrize("count", [1, 3, 4, 12])
def test_nothing_lies_over_anything(count: int) -> None:
    made = [curve(f"model {n} of the family", 3 + n % 4 + n // 4, GAPS) for n in range(count)]
    figure = rendered(draw([cut(one, None, 0.1) for one in made], UNITS, "Title", ["a", "b"]))
    (legend,) = figure.legends
    renderer = FigureCanvasAgg(figure).get_renderer()
    inside = figure.axes[0].bbox
    numbers = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    assert len(numbers) == (3 * count if count <= 4 else 0)
    boxes = [text.get_window_extent() for text in numbers]
    for i, box in enumerate(boxes):
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1
        assert not any(box.overlaps(other) for other in boxes[:i]), numbers[i].get_text()
    for axes in figure.axes:
        around = axes.get_tightbbox(renderer)
        assert around is not None and not around.overlaps(legend.get_window_extent())
        assert not any(around.overlaps(text.get_window_extent()) for text in figure.texts)
        assert around.x0 >= 0 and around.x1 <= figure.bbox.x1
    assert legend.get_window_extent().x0 >= 0


def test_lines_are_told_apart() -> None:
    looks = line_looks([str(n) for n in range(30)], "curves")
    assert len({str(look) for look in looks}) == 30
    with pytest.raises(InputError, match="31 curves are too many for one figure, which tells 30"):
        line_looks([""] * 31, "curves")
    codecs = [OperatingPoint(str(n), 1.0, 1.0) for n in range(7)]
    with pytest.raises(InputError, match="7 series of codecs are too many"):
        draw([curve()], UNITS, "", [], codecs=codecs)


def test_every_image_has_its_line_below_their_mean() -> None:
    one, _ = images()
    kept = cut(curve(), None, 0.5)
    figure = rendered(draw_images(one, kept, UNITS, "Images", []))
    *thin, thick = lines(figure)
    assert len(thin) == 12
    first = len(BETAS) - len(kept.beta_T)
    for line, rate_T, distortion_T in zip(thin, one.rate_IT, one.distortion_IT, strict=True):
        np.testing.assert_array_equal(points(line)[0], distortion_T[first:])
        np.testing.assert_array_equal(points(line)[1], rate_T[first:])
    np.testing.assert_array_equal(points(thick)[1], kept.rate_T)
    assert thick.get_linewidth() > 3 * thin[0].get_linewidth()


def converged(temperatures: int, gaps: tuple[Gap, ...] = GAPS) -> Convergence:
    level = np.linspace(1, 1 - 50 / temperatures, len(BETAS))
    three = np.stack([0.8 * level, level, level])
    expected = 14.9**2 / (2 * (temperatures - 1))
    return Convergence(
        f"T = {temperatures}", temperatures, BETAS, three, 0.7 * three, gaps, expected
    )


class TestConvergence:
    def test_panels_show_what_was_measured(self) -> None:
        one = converged(500)
        figure = rendered(convergence.draw([one, converged(2000)], "Convergence", []))
        sizes, moves, _ = figure.axes
        np.testing.assert_array_equal(points(sizes.lines[0])[1], one.ess_3T[1])
        np.testing.assert_array_equal(points(moves.lines[0])[1], one.acceptance_3T[1])

    def test_gaps_stand_over_their_number_of_temperatures(self) -> None:
        better = tuple(one._replace(value=one.value / 4) for one in GAPS[:2])
        figure = rendered(convergence.draw([converged(2000, better), converged(500)], "", []))
        axes = figure.axes[2]
        found = {str(line.get_label()): points(line) for line in axes.lines}
        for one, name in zip(GAPS, ("β ≈ 1", "β = 10"), strict=False):
            x, y = found[name]
            np.testing.assert_allclose(y, [one.value, one.value / 4])
            np.testing.assert_allclose(x, [500, 2000], rtol=0.15)
        assert len(found["β = 200"][0]) == 1
        assert "worst image" not in found
        bars = [bar.get_segments()[0][:, 1] for bar in axes.collections]
        expected = [one.interval for one in (*GAPS, *better)]
        np.testing.assert_allclose(sorted(map(tuple, bars)), sorted(expected))
        x, y = found["one chain to β = 200,\nindependent moves"]
        np.testing.assert_allclose(y, 14.9**2 / (2 * (x - 1)))

    def test_worst_images_are_marked(self) -> None:
        gaps = tuple(one._replace(worst=10 * one.value) for one in GAPS)
        axes = rendered(convergence.draw([converged(500, gaps)], "", [])).axes[2]
        marks = [points(line)[1] for line in axes.lines if line.get_marker() == "x"]
        assert [one.worst for one in gaps] == [y[0] for y in marks if len(y)]
        assert any(line.get_label() == "worst image" for line in axes.lines)

    def test_points_of_one_evaluation_do_not_hide_each_other(self) -> None:
        axes = rendered(convergence.draw([converged(500)], "", [])).axes[2]
        places = [
            axes.transData.transform((points(line)[0][0], 1))[0]
            for line in axes.lines
            if str(line.get_label()).startswith("β")
        ]
        assert len(places) == 3 and (np.diff(places) > 10).all()

    def test_legends_lie_beside_the_panels(self) -> None:
        figure = rendered(convergence.draw([converged(n) for n in (250, 500, 8000)], "T", ["a"]))
        renderer = FigureCanvasAgg(figure).get_renderer()
        for legend in figure.legends:
            box = legend.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
            for axes in figure.axes:
                around = axes.get_tightbbox(renderer)
                assert around is not None and not around.overlaps(box)
