"""The figure of distortion at equal perception against shared random bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gencomp.errors import InputError
from gencomp.evaluation import scales
from gencomp.evaluation.measured import Measured
from gencomp.figures.style import COLOURS, INK, MARKERS, style, titled
from gencomp.rate_distortion.perception import shared_randomness_factor

_SIZE = (8.6, 3.6)  # inches


class Budget(NamedTuple):
    """What codecs with one budget of shared bits reach.

    Attributes:
        bits: the shared bits of an image; infinite without a limit.
        distortions: the distortion at each perception, None where the codecs do not reach it.
    """

    bits: float
    distortions: Sequence[Measured | None]


@dataclass(frozen=True)
class Curves:
    """Distortion at some perceptions, by the budget of shared bits.

    Attributes:
        levels: the perceptions.
        budgets: the budgets, increasing.
        runs: the number of runs behind them.
        rate: the bits of an image's code at its fixed length; None where they are not known.
        values: the number of its symbols.
    """

    levels: Sequence[float]
    budgets: Sequence[Budget]
    runs: int
    rate: float | None
    values: int


def draw(curves: Curves, distortion: str, perception: str, title: str) -> Figure:
    """Draw the distortion, and its ratio to that of unlimited bits beside the closed form.

    Args:
        curves: what is drawn.
        distortion, perception: the names of the metrics.
        title: the title of the figure.

    Raises:
        InputError: there are more perceptions than colours.
    """
    if len(curves.levels) > len(COLOURS):
        raise InputError(f"--at takes one to {len(COLOURS)} perceptions, not {len(curves.levels)}")
    with style():
        figure = titled(*_SIZE, title, _remarks(curves, distortion, perception))
        left, right = figure.subplots(1, 2)
        for number, level in enumerate(curves.levels):
            found = [budget.distortions[number] for budget in curves.budgets]
            look: dict[str, Any] = {
                "color": COLOURS[number],
                "marker": MARKERS[number],
                "label": f"{perception} {level:.3g}",
            }
            _draw(left, found, 1.0, look)
            unlimited = found[-1] if math.isinf(curves.budgets[-1].bits) else None
            if unlimited is not None:
                _draw(right, found, unlimited.value, look)
        if curves.rate is not None:
            factors = [
                shared_randomness_factor(curves.rate, budget.bits, curves.values)
                for budget in curves.budgets
            ]
            places = np.arange(len(factors))
            dashes = (0, (4, 2))
            right.plot(places, factors, color=INK, linestyle=dashes, label="Gaussian, P = 0")
        unit = scales.UNITS.get(distortion)
        left.set_ylabel(distortion + (f"\n({unit})" if unit else ""))
        right.set_ylabel("times that of unlimited shared bits")
        for axes in (left, right):
            axes.set_xticks(
                range(len(curves.budgets)), [_bits(budget.bits) for budget in curves.budgets]
            )
            axes.set_xlabel("shared bits an image")
            axes.margins(0.1)
        _add_legend(figure, (left, right))
    return figure


def _remarks(curves: Curves, distortion: str, perception: str) -> list[str]:
    """The lines under the title."""
    remarks = [
        f"{curves.runs} runs; held-out images; bars: 95 % intervals where they are known,"
        " without the noise of training",
        f"Each point is the least {distortion} of all runs with these shared bits, and mixtures of"
        f" two, at that {perception} or less",
    ]
    if curves.rate is not None:
        remarks.append(
            f"Dashes: a Gaussian of {curves.values} values at {curves.rate:.4g} bits, of equal"
            " distributions, in closed form"
        )
    return remarks


def _add_legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Add one legend of all panels, in which what stands in several stands once."""
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=min(len(handles), 4),
    )


def _draw(axes: Axes, found: Sequence[Measured | None], unit: float, look: dict[str, Any]) -> None:
    places = [place for place, one in enumerate(found) if one is not None]
    known = [one for one in found if one is not None]
    ends = [one.interval or (one.value, one.value) for one in known]
    bars = np.array(
        [
            [max(one.value - low, 0.0) for one, (low, _) in zip(known, ends, strict=True)],
            [max(high - one.value, 0.0) for one, (_, high) in zip(known, ends, strict=True)],
        ]
    )
    axes.errorbar(
        places,
        [one.value / unit for one in known],
        yerr=bars / unit if bars.any() else None,
        elinewidth=0.8,
        markeredgecolor="white",
        markeredgewidth=0.5,
        **look,
    )


def _bits(bits: float) -> str:
    return "unlimited" if math.isinf(bits) else f"{bits:g}"
