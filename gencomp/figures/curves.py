"""The figure of metrics against the rate.

It has a panel for each metric and a line for each series; bars show the intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from gencomp.errors import InputError
from gencomp.evaluation.feature_inputs import whole_name
from gencomp.evaluation.psnr import psnr
from gencomp.figures.style import (
    COLOURS,
    DASHES,
    MARKERS,
    MUTED,
    log_axis,
    plain,
    style,
    titled,
)

# The title and the axis label of each metric.
LABELS: dict[str, tuple[str, str]] = {
    "mse": ("Distortion: MSE", "MSE on [−1, 1]"),
    "psnr": ("Distortion: PSNR", "PSNR, dB"),
    "mean_psnr": ("Distortion: PSNR of each image", "mean PSNR of images, dB"),
    "ms_ssim": ("Distortion: MS-SSIM", "MS-SSIM"),
    "lpips": ("Distortion: LPIPS", "LPIPS"),
    "dists": ("Distortion: DISTS", "DISTS"),
    "mmd": ("Prior mismatch: MMD of the latents", "MMD to the prior"),
    "pv": ("Diversity: conditional pixel variance", "PV on [−1, 1]"),
    "rfid": ("Perception: rFID", "FID of reconstructions"),
    "rkid": ("Perception: rKID", "KID of reconstructions"),
    "rfd": ("Perception: Fréchet distance of features", "Fréchet distance of reconstructions"),
    "rkd": ("Perception: kernel distance of features", "kernel distance of reconstructions"),
}
_LOGARITHMIC = ("mse", "pv")
_FROM_ZERO = ("pv", "mmd", "rfid", "rfd")
_PANEL = (4.4, 3.3)  # inches
_LEGEND_ROW = 0.17  # inches
_LETTERS = 60  # the letters of the legend that a panel is wide
_MOST_TICKS = 7
_CLOSE = 1.3  # the factor within which rates share a tick


# A run that was measured, an engineered codec that was measured beside it, or a published result.
Kind = Literal["result", "classical", "published"]


@dataclass(frozen=True)
class Point:
    """One metric of one run.

    Attributes:
        series: the name of the line that the point belongs to.
        bpp: the rate in bits per pixel: of the code, or of the whole archive for a reference.
        value: the value of the metric.
        interval: the 95 % interval, where it is known.
        source: the place that the value comes from, for messages.
        protocol: the properties, such as data and split, that all points of an axis must share;
            None where nothing is known of them.
        kind: what the point is of; engineered codecs are drawn in grey, published ones dashed.
        file_bpp: the rate of whole files, at which a thin line from the point ends.
        rate_of: the pictures whose files have this rate, in words; empty where there are no files.
    """

    series: str
    bpp: float
    value: float
    interval: tuple[float, float] | None
    source: str
    protocol: Mapping[str, Any] | None = field(default_factory=dict)
    kind: Kind = "result"
    file_bpp: float | None = None
    rate_of: str = ""


class Panel(NamedTuple):
    """One metric and the points that are drawn on its axis."""

    metric: str
    points: Sequence[Point]


def require_one_protocol(panel: Panel) -> None:
    """Require that all points of a panel, and their rates, were measured in the same way.

    Raises:
        InputError: two points were measured in different ways; the message names the difference.
    """
    rates = {point.rate_of: point.source for point in panel.points if point.rate_of}
    if len(rates) > 1:
        (pictures, source), (other_pictures, other_source), *_ = rates.items()
        raise InputError(
            f"rates of {source} and of {other_source} cannot stand on one axis: they are of files"
            f" of {pictures} and of {other_pictures}"
        )
    known = [(point, point.protocol) for point in panel.points if point.protocol is not None]
    for other, protocol in known[1:]:
        first, shared = known[0]
        for key in dict.fromkeys([*shared, *protocol]):
            a, b = shared.get(key), protocol.get(key)
            if a != b:
                raise InputError(
                    f"{panel.metric} of {first.source} and of {other.source} cannot stand in one"
                    f" axis: {key} is {a} of the first and {b} of the second"
                )


def draw(panels: Sequence[Panel], title: str, remarks: Sequence[str]) -> Figure:
    """Draw the panels in one figure with a common legend.

    Args:
        panels: one or more panels with one or more points each.
        title: the title of the figure.
        remarks: the lines under the title.

    Raises:
        InputError: points of one panel have different protocols, or there are more series than
            colours.
    """
    for panel in panels:
        require_one_protocol(panel)
    looks = _looks(panels)
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    legend = _legend_columns(list(looks), columns)
    width = columns * _PANEL[0]
    height = rows * _PANEL[1] + 0.13 + _LEGEND_ROW * math.ceil(len(looks) / legend)
    with style():
        figure = titled(width, height, title, remarks)
        axes_RC = figure.subplots(rows, columns, squeeze=False)
        for axes, panel in zip(axes_RC.flat, panels, strict=False):
            _draw_panel(axes, panel, looks)
        for axes in list(axes_RC.flat)[len(panels) :]:
            axes.set_axis_off()
        handles: dict[str, Any] = {}
        for axes in axes_RC.flat:
            handles |= {
                label: h for h, label in zip(*axes.get_legend_handles_labels(), strict=True)
            }
        ordered = [name for name in looks if name in handles]
        figure.legend(
            [handles[name] for name in ordered],
            ordered,
            loc="outside lower center",
            ncols=min(len(ordered), legend),
        )
    return figure


def _legend_columns(names: Sequence[str], columns: int) -> int:
    """How many columns the legend has, so that it is no wider than the panels."""
    longest = max(map(len, names), default=0)
    return max(1, min(2 * columns + 1, len(names), _LETTERS * columns // (longest + 8)))


def _looks(panels: Sequence[Panel]) -> dict[str, dict[str, Any]]:
    """The colour, marker and line style of each series, the same in all panels."""
    points = [point for panel in panels for point in panel.points]
    series, references, published = (
        list(dict.fromkeys(point.series for point in points if point.kind == kind))
        for kind in ("result", "classical", "published")
    )
    if len(published) > len(COLOURS) * len(DASHES):
        raise InputError(
            f"{len(published)} published curves are too many for one figure, which tells"
            f" {len(COLOURS) * len(DASHES)} apart; name some of them with --published"
        )
    if len(series) > len(COLOURS) or len(references) > len(DASHES):
        raise InputError(
            f"{len(series)} series and {len(references)} classical codecs are too many for one"
            f" figure, which tells {len(COLOURS)} and {len(DASHES)} apart"
        )
    looks: dict[str, dict[str, Any]] = {
        name: {"color": COLOURS[i], "marker": MARKERS[i], "linestyle": "-", "zorder": 3}
        for i, name in enumerate(series)
    }
    for i, name in enumerate(references):
        looks[name] = {"color": MUTED, "linestyle": DASHES[i], "zorder": 2, "linewidth": 1.2}
    for i, name in enumerate(published, len(series)):  # in other colours than the first results
        colour, dashes = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]
        looks[name] = {"color": colour, "linestyle": dashes, "zorder": 1, "linewidth": 0.9}
    return looks


def _draw_panel(axes: Axes, panel: Panel, looks: Mapping[str, Mapping[str, Any]]) -> None:
    for name in looks:
        points = sorted((p for p in panel.points if p.series == name), key=lambda p: p.bpp)
        if not points:
            continue
        bars = None
        if any(point.interval and point.kind == "result" for point in points):
            ends = [point.interval or (point.value, point.value) for point in points]
            below = [point.value - low for point, (low, _) in zip(points, ends, strict=True)]
            above = [high - point.value for point, (_, high) in zip(points, ends, strict=True)]
            bars = np.maximum([below, above], 0)
        axes.errorbar(
            [point.bpp for point in points],
            [point.value for point in points],
            yerr=bars,
            label=name,
            capsize=2.5,
            elinewidth=1,
            markeredgecolor="white",
            markeredgewidth=0.5,
            **looks[name],
        )
        for point in points:
            if point.file_bpp is not None:
                _draw_container(axes, point, point.file_bpp, looks[name]["color"])
    whole, side = whole_name(panel.metric)
    title, label = LABELS[whole]
    if side is not None:
        label = f"{label}, patches of {side}×{side}"
    axes.set_title(title)
    axes.set_ylabel(label)
    axes.set_xlabel("measured rate, bits per pixel")
    axes.margins(x=0.06, y=0.1)
    _rate_axis(axes, panel.points)
    values = [point.value for point in panel.points]
    if panel.metric in _LOGARITHMIC and min(values) > 0:
        log_axis(axes)
        if panel.metric == "mse":
            _decibels(axes)
    elif whole in _FROM_ZERO and min(values) >= 0:
        axes.set_ylim(bottom=0)


def _draw_container(axes: Axes, point: Point, file_bpp: float, colour: str) -> None:
    """Draw the thin line from the rate of a point's code to that of its whole files."""
    x, y = (point.bpp, file_bpp), (point.value, point.value)
    axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.7, zorder=2)
    axes.plot(x[1:], y[1:], color=colour, marker="|", markersize=5, alpha=0.7, zorder=2)


def _rate_axis(axes: Axes, points: Sequence[Point]) -> None:
    """Make the axis of rates logarithmic, with room for a rate of 0.

    Its ticks stand at the rates of the runs, one for those that lie close together, and at round
    rates above them.
    """
    rates: list[float] = []
    for rate in sorted({point.bpp for point in points if point.kind == "result"}):
        if not rates or rates[-1] <= 0 or rate > _CLOSE * rates[-1]:
            rates.append(rate)
    positive = [rate for rate in rates if rate > 0]
    if not positive:
        return
    if rates[0] <= 0:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
        axes.set_xlim(left=-0.12 * positive[0])
    else:
        axes.set_xscale("log")
    if len(rates) <= _MOST_TICKS:
        highest = max(point.file_bpp or point.bpp for point in points)
        above = [x for x in (0.25, 0.5, 1, 2, 4, 8, 16) if 2.5 * rates[-1] < x < 1.2 * highest]
        axes.xaxis.set_major_locator(FixedLocator([*rates, *above]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _decibels(axes: Axes) -> None:
    """Put an exact axis of PSNR at the right of an axis of MSE; PSNR is linear in log MSE."""
    right = axes.twinx()
    right.set_ylim(*(psnr(y) for y in axes.get_ylim()))
    right.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    right.yaxis.set_major_formatter(FuncFormatter(plain))
    right.set_ylabel("PSNR, dB")
    right.grid(False)
    for name, spine in right.spines.items():
        spine.set_visible(name == "right")
