"""Rate-distortion curves of generative models, measured by annealed importance sampling.

The rate is drawn on a logarithmic vertical axis against the distortion, as in Huang, Makhzani, Cao
and Grosse (ICML 2020). Suffixes of arrays: I images, T inverse temperatures, P points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

from gencomp.errors import InputError
from gencomp.figures.rate_axes import Units, label_axes
from gencomp.figures.style import (
    COLOURS,
    INK,
    MARKERS,
    MUTED,
    beside,
    line_looks,
    spread,
    style,
    titled,
)

_SIZE = (6.6, 4.9)  # inches
_LETTERS = 100  # letters in a line of the legend
_FEW = 4  # the most curves for which each gap is written beside its star
_VARIATIONAL: dict[str, Any] = {
    "linestyle": (0, (1, 1.6)),
    "linewidth": 1.0,
    "marker": "o",
    "markersize": 3.2,
    "markerfacecolor": "white",
    "markeredgewidth": 0.8,
}
_STAR: dict[str, Any] = {
    "marker": "*",
    "markersize": 9,
    "markeredgecolor": "white",
    "markeredgewidth": 0.6,
    "linestyle": "none",
}


class Gap(NamedTuple):
    """The gap between the two bounds of log Z at one β, by bidirectional Monte Carlo.

    Attributes:
        beta: the β of the schedule.
        asked: the β that the user asked for; the schedule's is close to it.
        value: the mean gap over simulated images in nats.
        standard_error: the standard error over these images in nats.
        interval: the 95 % interval in nats.
        worst: the gap of the simulated image with the largest one, in nats; None where a result
            does not say.
    """

    beta: float
    asked: float
    value: float
    standard_error: float
    interval: tuple[float, float]
    worst: float | None = None

    def __str__(self) -> str:
        low, high = self.interval
        said = f"{self.value:.3g} ({low:.3g} to {high:.3g})"
        if self.worst is not None:
            said += f"\nworst image {self.worst:.3g}"
        return said.replace("-", "−")


@dataclass(frozen=True, eq=False)
class DrawnCurve:
    """The curve of a model, as the mean over images at equal β.

    Attributes:
        label: the name of the curve in the legend.
        beta_T: the inverse temperatures, increasing.
        rate_T: the rates in nats per image.
        distortion_T: the distortions in the units of the axes.
        low_T, high_T: the ends of the 95 % interval of the distortion at equal rate; not numbers
            where it is unknown, as for one image.
        gaps: the gaps of bidirectional Monte Carlo, if there are any.
        remark: text after the label, such as what is missing.
    """

    label: str
    beta_T: np.ndarray
    rate_T: np.ndarray
    distortion_T: np.ndarray
    low_T: np.ndarray
    high_T: np.ndarray
    gaps: Sequence[Gap] = ()
    remark: str = ""

    def at(self, beta: float) -> tuple[float, float]:
        """The distortion and the rate at an inverse temperature, on the line as it is drawn.

        All rates must be positive.
        """
        at, log_beta_T = math.log(beta), np.log(self.beta_T)
        distortion = np.interp(at, log_beta_T, self.distortion_T)
        return float(distortion), float(np.exp(np.interp(at, log_beta_T, np.log(self.rate_T))))


@dataclass(frozen=True, eq=False)
class Variational:
    """Points of Gaussian encoders trained for one decoder, which are an independent upper bound.

    Attributes:
        of: the number of the curve of the same decoder.
        rate_P: the rates in nats per image.
        distortion_P: the distortions in the units of the axes.
    """

    of: int
    rate_P: np.ndarray
    distortion_P: np.ndarray


@dataclass(frozen=True)
class OperatingPoint:
    """The rate and the distortion of a codec.

    Attributes:
        series: the name of the series in the legend; a line joins the points of a series.
        rate: the rate in nats per image.
        distortion: the distortion in the units of the axes.
        interval: the 95 % interval of the distortion, where it is known.
    """

    series: str
    rate: float
    distortion: float
    interval: tuple[float, float] | None = None


def distortion_interval(
    beta_T: np.ndarray, distortion_T: np.ndarray, total_T: np.ndarray, ends_2T: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the interval of the distortion at equal rate.

    The curve is the envelope of the lines rate + β·distortion = -log Z, so an error e of -log Z
    moves the curve by e/β along the distortion.

    Args:
        beta_T: the inverse temperatures.
        distortion_T: the distortions.
        total_T: the mean of -log Z.
        ends_2T: the ends of the interval of -log Z.
    """
    low_T, high_T = (distortion_T + (end_T - total_T) / beta_T for end_T in ends_2T)
    return low_T, high_T


def cut(curve: DrawnCurve, distortion: float | None, rate: float | None) -> DrawnCurve:
    """The part of a curve from a given distortion or rate to higher inverse temperatures.

    The first point kept is the one whose value is closest to the limit; with two limits, it is the
    later of their two points.

    Raises:
        InputError: no point with a positive rate is left.
    """
    first = 0
    for values_T, limit in ((curve.distortion_T, distortion), (curve.rate_T, rate)):
        if limit is not None:
            first = max(first, int(np.abs(values_T - limit).argmin()))
    # A logarithmic axis has no place for the rates near 0 that noise makes negative.
    not_positive = np.flatnonzero(curve.rate_T <= 0)
    if len(not_positive):
        first = max(first, int(not_positive[-1]) + 1)
    if first >= len(curve.beta_T):
        raise InputError(f"the curve {curve.label} has no positive rate at its last temperature")
    arrays = ("beta_T", "rate_T", "distortion_T", "low_T", "high_T")
    kept: dict[str, Any] = {name: getattr(curve, name)[first:] for name in arrays}
    # A gap was measured at a β of its own, which need not be one of the reported ones.
    gaps = [gap for gap in curve.gaps if gap.beta >= kept["beta_T"][0] * (1 - 1e-9)]
    return replace(curve, **kept, gaps=gaps)


def draw(
    curves: Sequence[DrawnCurve],
    units: Units,
    title: str,
    remarks: Sequence[str],
    variational: Sequence[Variational] = (),
    codecs: Sequence[OperatingPoint] = (),
) -> Figure:
    """Draw curves with their intervals and gaps, trained encoders and codecs.

    Args:
        curves: the curves, with positive rates (see `cut`).
        units: the units of all curves.
        title: the title of the figure.
        remarks: the lines under the title.
        variational: points of trained encoders; points below the rates of their curve are left out.
        codecs: the operating points of codecs.

    Raises:
        InputError: more curves or codecs than can be told apart.
    """
    looks = line_looks([curve.label for curve in curves], "curves")
    opacity = min(0.2, 0.5 / (1 + len(curves)))
    with style():
        figure = titled(*_SIZE, title, remarks)
        axes = figure.subplots()
        for curve, look in zip(curves, looks, strict=True):
            across = curve.rate_T, curve.low_T, curve.high_T
            axes.fill_betweenx(*across, color=look["color"], alpha=opacity, linewidth=0)
            axes.plot(curve.distortion_T, curve.rate_T, **look, zorder=3)
        for one in variational:
            colour = looks[one.of]["color"]
            kept_P = one.rate_P >= curves[one.of].rate_T[0]
            axes.plot(one.distortion_P[kept_P], one.rate_P[kept_P], color=colour, **_VARIATIONAL)
        drawn = _draw_codecs(axes, codecs)
        label_axes(axes, units)
        labels = _draw_brackets(axes, curves, looks)
        handles: list[Any] = [
            Line2D([], [], label=f"{curve.label}{curve.remark}", **look)
            for curve, look in zip(curves, looks, strict=True)
        ]
        if variational:
            label = "trained Gaussian encoder"
            handles.append(Line2D([], [], color=MUTED, label=label, **_VARIATIONAL))
        handles += drawn
        if any(curve.gaps for curve in curves):
            label = "BDMC gap on simulated images, nats" + (" (95 %)" if labels else "")
            handles.append(Line2D([], [], color=MUTED, label=label, **_STAR))
        widest = max(len(str(handle.get_label())) for handle in handles)
        columns = min(len(handles), max(1, _LETTERS // (widest + 8)))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)
        spread(axes, labels)
    return figure


def _draw_brackets(
    axes: Axes, curves: Sequence[DrawnCurve], looks: Sequence[dict[str, Any]]
) -> list[Annotation]:
    """Draw each gap as a star on the curve and a line below it, as long as the gap in nats.

    The labels that state the gaps are returned.
    """
    lowest = axes.get_ylim()[0]
    labels = []
    for curve, look in zip(curves, looks, strict=True):
        for gap in curve.gaps:
            x, y = curve.at(gap.beta)
            end = max(y - max(gap.value, 0.0), lowest)
            axes.vlines(x, end, y, color=look["color"], linewidth=2.2, zorder=4)
            axes.plot([x], [y], color=look["color"], **_STAR, zorder=5)
            if len(curves) <= _FEW:
                labels.append(beside(axes, str(gap), (x, y), look["color"]))
    axes.set_ylim(bottom=lowest)
    return labels


def _draw_codecs(axes: Axes, codecs: Sequence[OperatingPoint]) -> list[ErrorbarContainer]:
    """Draw codecs with large dark markers, which set them apart from the curves of decoders."""
    series = list(dict.fromkeys(point.series for point in codecs))
    if len(series) > len(MARKERS):
        raise InputError(
            f"{len(series)} series of codecs are too many for one figure, which tells"
            f" {len(MARKERS)} apart"
        )
    drawn = []
    for name, marker in zip(series, MARKERS, strict=False):
        points = sorted((p for p in codecs if p.series == name), key=lambda p: p.rate)
        ends = [p.interval or (p.distortion, p.distortion) for p in points]
        bars = [[p.distortion - low for p, (low, _) in zip(points, ends, strict=True)]]
        bars += [[high - p.distortion for p, (_, high) in zip(points, ends, strict=True)]]
        drawn.append(
            axes.errorbar(
                [p.distortion for p in points],
                [p.rate for p in points],
                xerr=np.maximum(bars, 0),
                label=name,
                color=INK,
                marker=marker,
                markersize=6,
                markeredgecolor="white",
                markeredgewidth=0.6,
                linestyle=(0, (1, 1.4)),
                linewidth=0.8,
                elinewidth=0.9,
                capsize=2.5,
                zorder=4,
            )
        )
    return drawn


@dataclass(frozen=True, eq=False)
class ImageCurves:
    """The curves of one model for each image.

    Attributes:
        beta_T: the inverse temperatures, increasing.
        rate_IT: the rates in nats per image.
        distortion_IT: the distortions in the units of the axes.
    """

    beta_T: np.ndarray
    rate_IT: np.ndarray
    distortion_IT: np.ndarray


def draw_images(
    curves: ImageCurves, mean: DrawnCurve, units: Units, title: str, remarks: Sequence[str]
) -> Figure:
    """Draw the curve of every image as a thin line, and their mean at equal β as a thick one.

    Args:
        curves: the curves at all temperatures; those below the mean's first one are left out.
        mean: the mean curve, with positive rates (see `cut`).
        units: the units of all curves.
        title: the title of the figure.
        remarks: the lines under the title.
    """
    kept_T = curves.beta_T >= mean.beta_T[0]
    images = len(curves.rate_IT)
    thin: dict[str, Any] = {"color": COLOURS[0], "linewidth": 0.6}
    with style():
        figure = titled(*_SIZE, title, remarks)
        axes = figure.subplots()
        for rate_T, distortion_T in zip(curves.rate_IT, curves.distortion_IT, strict=True):
            shown_T = kept_T & (rate_T > 0)
            opacity = min(0.8, 6 / math.sqrt(10 * images))
            axes.plot(distortion_T[shown_T], rate_T[shown_T], alpha=opacity, **thin)
        axes.plot(mean.distortion_T, mean.rate_T, color=INK, linewidth=2.4)
        label_axes(axes, units)
        label = f"{mean.label}, mean at equal β{mean.remark}"
        handles = [
            Line2D([], [], color=INK, linewidth=2.4, label=label),
            Line2D([], [], label=f"{images} images", **thin),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure
