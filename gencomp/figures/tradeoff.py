"""The figure of distortion against perception: a point a run, and the closed form of a Gaussian."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from gencomp.errors import InputError
from gencomp.evaluation import scales
from gencomp.figures.style import COLOURS, GRID, MARKERS, MUTED, beside, spread, style, titled
from gencomp.rate_distortion import perception

_SIZE = (6.4, 4.2)  # inches
_CURVE_POINTS = 200


@dataclass(frozen=True)
class Point:
    """A run in the plane of distortion and perception.

    Attributes:
        series: the kind of run, such as its system and stage.
        x, y: distortion and perception.
        x_interval, y_interval: the 95 % intervals, where they are known.
        label: what tells the run from the others, such as its λ.
        name: the name of the run, by which others name it as their base.
        bases: the names of the runs that it starts from.
    """

    series: str
    x: float
    y: float
    x_interval: tuple[float, float] | None
    y_interval: tuple[float, float] | None
    label: str
    name: str
    bases: tuple[str, ...] = ()


def draw(
    points: Sequence[Point],
    distortion: str,
    perceived: str,
    title: str,
    remarks: Sequence[str],
) -> Figure:
    """Draw runs as points with their intervals, and a thin line from each to its base.

    Args:
        points: one or more points.
        distortion, perceived: the metrics of the axes.
        title: the title of the figure.
        remarks: the lines under the title.

    Raises:
        InputError: there are more kinds of runs than colours.
    """
    series = list(dict.fromkeys(point.series for point in points))
    if len(series) > len(COLOURS):
        raise InputError(
            f"{len(series)} kinds of runs are too many for one figure, which tells {len(COLOURS)}"
            " apart"
        )
    placed = {point.name: point for point in points}
    with style():
        figure = titled(*_SIZE, title, remarks)
        axes = figure.subplots()
        for point in points:
            for base in point.bases:
                if base in placed:
                    ends = placed[base]
                    axes.plot([ends.x, point.x], [ends.y, point.y], color=GRID, zorder=1)
        for number, name in enumerate(series):
            own = [point for point in points if point.series == name]
            axes.errorbar(
                [point.x for point in own],
                [point.y for point in own],
                xerr=_bars([(point.x, point.x_interval) for point in own]),
                yerr=_bars([(point.y, point.y_interval) for point in own]),
                color=COLOURS[number],
                marker=MARKERS[number],
                linestyle="none",
                label=name,
                elinewidth=0.8,
                markeredgecolor="white",
                markeredgewidth=0.5,
                zorder=3,
            )
        labels = [
            beside(axes, point.label, (point.x, point.y), COLOURS[series.index(point.series)])
            for point in points
            if point.label
        ]
        axes.set_xlabel(_axis("distortion", distortion))
        axes.set_ylabel(_axis("perception", perceived))
        axes.margins(0.12)
        figure.legend(loc="outside lower center", ncols=len(series))
        spread(axes, labels)
    return figure


def draw_gaussian(rates: Sequence[float], title: str) -> Figure:
    """Draw D(R, P) of a standard Gaussian for some rates, with both decoders of a dithered code.

    Args:
        rates: the rates in bits.
        title: the title of the figure.
    """
    remarks = [
        "X ~ N(0, 1). Lines: the least distortion at each perception, all reached by one encoder",
        "Dots: its decoders of least distortion (right) and of equal distribution (left)",
        "Dashes: equal distribution without shared randomness, twice the least distortion",
    ]
    with style():
        figure = titled(*_SIZE, title, remarks)
        axes = figure.subplots()
        for number, rate in enumerate(rates):
            colour = COLOURS[number % len(COLOURS)]
            most = perception.active_perception(rate)
            bounds = np.linspace(0, most, _CURVE_POINTS)
            distortions = [perception.gaussian_distortion(rate, bound) for bound in bounds]
            axes.plot(bounds, distortions, color=colour, label=f"{rate:g} bits")
            axes.plot([0, most], [distortions[0], distortions[-1]], "o", color=colour)
            private = perception.limited_randomness_distortion(rate, 0)
            axes.plot([0, 0.02], [private, private], color=colour, linestyle=(0, (3, 2)))
        axes.set_xlabel("perception: squared Wasserstein-2 distance")
        axes.set_ylabel("distortion: squared error")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.tick_params(colors=MUTED)
        figure.legend(loc="outside lower center", ncols=len(rates))
    return figure


def _axis(kind: str, metric: str) -> str:
    unit = scales.UNITS.get(metric)
    return f"{kind}: {metric}" + (f"\n({unit})" if unit else "")


def _bars(
    values: Sequence[tuple[float, tuple[float, float] | None]],
) -> np.ndarray | None:
    if not any(ends for _, ends in values):
        return None
    below = [value - ends[0] if ends else 0.0 for value, ends in values]
    above = [ends[1] - value if ends else 0.0 for value, ends in values]
    return np.maximum([below, above], 0)
