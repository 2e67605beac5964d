"""The figure that shows how far measured rate-distortion curves can be trusted.

It shows effective sample sizes, acceptance rates and the gaps of bidirectional Monte Carlo.
Suffixes of arrays: T inverse temperatures; 3 the lower end, the mean and the upper end over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from gencomp.figures.rate_distortion import Gap
from gencomp.figures.style import INK, MARKERS, MUTED, line_looks, plain, style, titled

_LINEAR = 0.01  # nats; up to here the axis is linear, since noise makes small gaps negative
_WORST: dict[str, Any] = {"marker": "x", "markersize": 4.5, "markeredgewidth": 1.2}
_MARGIN = 1.5  # the factor by which the axis of T extends on either side


@dataclass(frozen=True, eq=False)
class Convergence:
    """The numbers by which one evaluation shows its own quality.

    Attributes:
        label: the evaluation's name in the legend.
        temperatures: the number T of temperatures of the schedule; its path has K = T - 1
            transitions.
        beta_T: the reported inverse temperatures, increasing.
        ess_3T: the effective sample size as a fraction of the number of chains.
        acceptance_3T: the acceptance probability of the moves.
        gaps: the gaps of bidirectional Monte Carlo.
        expected_gap: the mean shortfall of log Z, in nats, of one chain whose moves are independent
            of each other.
    """

    label: str
    temperatures: int
    beta_T: np.ndarray
    ess_3T: np.ndarray
    acceptance_3T: np.ndarray
    gaps: Sequence[Gap]
    expected_gap: float


def draw(evaluations: Sequence[Convergence], title: str, remarks: Sequence[str]) -> Figure:
    """Draw sample size and acceptance along β, and the gap against the number of temperatures.

    Args:
        evaluations: evaluations of one decoder, at least one of them with a gap.
        title: the title of the figure.
        remarks: the lines under the title.

    Raises:
        InputError: more evaluations than can be told apart.
    """
    looks = line_looks([one.label for one in evaluations], "evaluations")
    with style():
        figure = titled(10.4, 3.3, title, remarks)
        sizes, moves, gaps = figure.subplots(1, 3)
        for one, look in zip(evaluations, looks, strict=True):
            opacity = min(0.2, 0.4 / (1 + len(evaluations)))
            for axes, (low_T, mean_T, high_T) in ((sizes, one.ess_3T), (moves, one.acceptance_3T)):
                shade = {"color": look["color"], "alpha": opacity, "linewidth": 0}
                axes.fill_between(one.beta_T, low_T, high_T, **shade)
                axes.plot(one.beta_T, mean_T, label=one.label, **look)
        sizes.set_title("Effective sample size")
        sizes.set_ylabel("ESS / chains")
        moves.set_title("Acceptance")
        moves.set_ylabel("probability of a move")
        for axes in (sizes, moves):
            axes.set_ylim(0, 1.03)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(numticks=6))
            axes.xaxis.set_major_formatter(FuncFormatter(plain))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlabel("inverse temperature β")
        handles = _gap_panel(gaps, evaluations, looks)
        figure.legend(handles=handles, loc="outside right center")
        handles, names = sizes.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 5))
    return figure


def _gap_panel(
    axes: Axes, evaluations: Sequence[Convergence], looks: Sequence[dict[str, Any]]
) -> list[Any]:
    """Draw the gaps as a line for each β, and return the handles for the legend.

    The points have the colours of their evaluations, and those of different β are moved a little
    apart.
    """
    counts = sorted({one.temperatures for one in evaluations})
    betas = sorted({gap.asked for one in evaluations for gap in one.gaps})
    reach_2 = np.array([counts[0] / _MARGIN, counts[-1] * _MARGIN])
    step = (reach_2[1] / reach_2[0]) ** (0.06 / max(1, len(betas) - 1))
    for number, beta in enumerate(betas):
        found = [
            (one.temperatures * step ** (number - (len(betas) - 1) / 2), gap, look["color"])
            for one, look in zip(evaluations, looks, strict=True)
            for gap in one.gaps
            if gap.asked == beta
        ]
        found.sort(key=lambda point: point[0])
        marker: dict[str, Any] = {"marker": MARKERS[number % len(MARKERS)], "markersize": 5.5}
        values = [gap.value for _, gap, _ in found]
        exact = all(gap.beta == beta for _, gap, _ in found)
        label = f"β {'=' if exact else '≈'} {plain(beta)}"
        axes.plot([x for x, *_ in found], values, color=MUTED, linewidth=0.9, label=label, **marker)
        for x, gap, colour in found:
            low, high = gap.interval
            bar = [[max(gap.value - low, 0)], [max(high - gap.value, 0)]]
            bars: dict[str, Any] = {"elinewidth": 1, "capsize": 2.5, "markeredgecolor": "white"}
            axes.errorbar([x], [gap.value], yerr=bar, color=colour, **marker, **bars)
            if gap.worst is not None:
                axes.plot([x], [gap.worst], color=colour, linestyle="none", **_WORST)
    if any(gap.worst is not None for one in evaluations for gap in one.gaps):
        axes.plot([], [], color=MUTED, linestyle="none", label="worst image", **_WORST)
    # It is ½ Σ (Δβ)² Var[d], so that it falls with the number of steps of the same kind.
    times_steps = np.mean([(one.temperatures - 1) * one.expected_gap for one in evaluations])
    axes.plot(
        reach_2,
        times_steps / (reach_2 - 1),
        color=INK,
        linewidth=1,
        linestyle=(0, (4, 3)),
        label=f"one chain to β = {plain(evaluations[0].beta_T[-1])},\nindependent moves",
    )
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlim(*reach_2)
    axes.xaxis.set_major_locator(FixedLocator(counts))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(y=0.08)
    axes.set_yscale("symlog", linthresh=_LINEAR, linscale=0.5)
    axes.yaxis.set_major_formatter(FuncFormatter(plain))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_title("BDMC gap, simulated images")
    axes.set_xlabel("temperatures, T = K + 1")
    axes.set_ylabel("gap, nats (bars: 95 %)")
    return axes.get_legend_handles_labels()[0]
