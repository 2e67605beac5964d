"""The latents of a system compared with its prior N(0, σ² I), in numbers and in a figure.

Suffixes of arrays: N images, M latent dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from gencomp.evaluation import kernel
from gencomp.evaluation.kernel import KernelDistance
from gencomp.figures.style import (
    COLOURS,
    GRID,
    INK,
    MARKERS,
    MUTED,
    style,
    titled,
)

NULL_DRAWS = 200
_NULL_SIZE = 200
_LEVELS = np.concatenate(
    [[0.001, 0.002, 0.005], np.linspace(0.01, 0.99, 99), [0.995, 0.998, 0.999]]
)
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class LatentSet:
    """The latents of one run.

    Attributes:
        name: the name of the run in the legend.
        z_NM: the latents B(E(x), noise) or F(x), float64.
        variance: the variance σ² of the prior.
    """

    name: str
    z_NM: np.ndarray
    variance: float


def measure(z_NM: np.ndarray, prior_NM: np.ndarray, variance: float) -> KernelDistance:
    """The MMD to the prior, as `gencomp evaluate` measures it.

    Args:
        z_NM: the latents.
        prior_NM: the same number of samples of the prior.
        variance: the variance σ² of the prior.
    """
    sigma = math.sqrt(variance)
    return kernel.distance(z_NM / sigma, prior_NM / sigma, False, kernel.inverse_multiquadric)


def null_spread(size: int, variance: float, sample: Callable[[int, int], np.ndarray]) -> np.ndarray:
    """The MMDs that chance alone gives, between pairs of sets of prior samples, [NULL_DRAWS].

    Between equal distributions the statistic is degenerate, so its spread is proportional to 1/size
    (Gretton et al., 2012). So large subsets are replaced by smaller ones, whose MMDs are scaled.

    Args:
        size: the number of samples in each set.
        variance: the variance σ² of the prior.
        sample: maps (number of a draw, count) to [count, m] samples of the prior.
    """
    subsets = kernel.subsets(size, size)
    whole = size / subsets
    drawn = min(math.ceil(whole), _NULL_SIZE)

    def mmd(both_NM: np.ndarray) -> float:
        form = kernel.inverse_multiquadric
        return kernel.subset_distance(both_NM[:drawn], both_NM[drawn:], False, form).value

    found = []
    for draw in range(NULL_DRAWS):
        standard_NM = sample(draw, 2 * drawn * subsets) / math.sqrt(variance)
        found.append(np.mean([mmd(both_NM) for both_NM in np.split(standard_NM, subsets)]))
    return np.array(found) * drawn / whole


def draw(
    sets: Sequence[LatentSet],
    measured: Sequence[KernelDistance],
    null: np.ndarray,
    title: str,
    remarks: Sequence[str],
) -> Figure:
    """Draw the quantiles, moments, norms and MMDs of up to six sets of latents with the same prior.

    Args:
        sets: the sets, all with the same number of images and of dimensions.
        measured: the MMD of each set.
        null: the `null_spread` of sets of this size.
        title: the title of the figure.
        remarks: the lines under the title.
    """
    with style():
        figure = titled(8.4, 6.2, title, remarks)
        axes_RC = figure.subplots(2, 2)
        _quantiles(axes_RC[0, 0], sets)
        _moments(axes_RC[0, 1], sets)
        _norms(axes_RC[1, 0], sets)
        _distances(axes_RC[1, 1], sets, measured, null)
        handles, names = axes_RC[0, 0].get_legend_handles_labels()
        columns = len(names) if len(names) < 6 else 4
        figure.legend(handles, names, loc="outside lower center", ncols=columns)
    return figure


def _quantiles(axes: Axes, sets: Sequence[LatentSet]) -> None:
    """Draw the quantiles over all coordinates, and a band of 80 % of the single coordinates."""
    normal = stats.norm.ppf(_LEVELS)
    axes.plot(normal, normal, color=INK, linewidth=1, linestyle=(0, (4, 3)), label="prior")
    for number, one in enumerate(sets):
        standard_NM = one.z_NM / math.sqrt(one.variance)
        each = np.quantile(standard_NM, _LEVELS, axis=0)
        low, high = np.quantile(each, [0.1, 0.9], axis=1)
        shade = 0.3 / (1 + len(sets))
        axes.fill_between(normal, low, high, color=COLOURS[number], alpha=shade, linewidth=0)
        axes.plot(
            normal,
            np.quantile(standard_NM, _LEVELS),
            color=COLOURS[number],
            marker=MARKERS[number],
            markevery=(7 + 2 * number, 14),
            markersize=4,
            label=one.name,
        )
    axes.set_title("Quantiles; band: 80 % of the coordinates")
    axes.set_xlabel("quantile of N(0, 1)")
    axes.set_ylabel("quantile of z / σ")


def _moments(axes: Axes, sets: Sequence[LatentSet]) -> None:
    """Draw a point for each coordinate, and a box whose sides span 95 % of each moment."""
    for number, one in enumerate(sets):
        sigma = math.sqrt(one.variance)
        axes.plot(
            one.z_NM.mean(0) / sigma,
            one.z_NM.var(0, ddof=1) / one.variance,
            color=COLOURS[number],
            marker=MARKERS[number],
            markersize=4.5,
            markeredgecolor="white",
            markeredgewidth=0.4,
            linestyle="none",
        )
    images = len(sets[0].z_NM)
    across, up = _NORMAL_95 / math.sqrt(images), _NORMAL_95 * math.sqrt(2 / (images - 1))
    box = [(-across, 1 - up), (across, 1 - up), (across, 1 + up), (-across, 1 + up)]
    axes.fill(*zip(*box, strict=True), facecolor="none", edgecolor=INK, linewidth=1, zorder=4)
    axes.plot([0], [1], marker="+", color=INK, markersize=9, markeredgewidth=1.2, zorder=5)
    axes.margins(0.08)
    axes.set_title("Coordinates; box: 95 % of each moment by chance")
    axes.set_xlabel("mean / σ")
    axes.set_ylabel("variance / σ²")


def _norms(axes: Axes, sets: Sequence[LatentSet]) -> None:
    """Draw histograms of |z|/σ as outlines, and the density of the chi distribution."""
    dimensions = sets[0].z_NM.shape[1]
    norms = [np.linalg.norm(one.z_NM, axis=1) / math.sqrt(one.variance) for one in sets]
    low, high = stats.chi.ppf([1e-4, 1 - 1e-4], dimensions)
    low, high = min(low, *(n.min() for n in norms)), max(high, *(n.max() for n in norms))
    bins = np.linspace(low, high, 41)
    for number, values in enumerate(norms):
        look: dict[str, Any] = {"color": COLOURS[number], "density": True, "bins": bins}
        axes.hist(values, histtype="stepfilled", alpha=0.3 / (1 + len(sets)), **look)
        axes.hist(values, histtype="step", linewidth=1.4, **look)
    x = np.linspace(low, high, 300)
    axes.plot(x, stats.chi.pdf(x, dimensions), color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_ylim(bottom=0)
    axes.set_title(f"Norms; dashed: chi distribution, {dimensions} degrees of freedom")
    axes.set_xlabel("|z| / σ")
    axes.set_ylabel("density")


def _distances(
    axes: Axes, sets: Sequence[LatentSet], measured: Sequence[KernelDistance], null: np.ndarray
) -> None:
    """Draw the estimates with 95 % intervals beside the range that chance alone gives."""
    low, high = np.quantile(null, [0.025, 0.975])
    axes.axvspan(low, high, color=GRID, zorder=0)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    for number, one in enumerate(measured):
        begin, end = one.interval or (one.value, one.value)  # without an error, no bar
        axes.errorbar(
            [one.value],
            [number],
            xerr=[[one.value - begin], [end - one.value]],
            color=COLOURS[number],
            marker=MARKERS[number],
            markersize=6,
            capsize=3,
            linestyle="none",
        )
        axes.annotate(
            f"{one.value:.4f}",
            (one.value, number),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(sets)), [one.name for one in sets])
    axes.set_ylim(len(sets) - 0.4, -0.7)
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", visible=False)
    axes.set_title("MMD to the prior, 95 %; grey: 95 % by chance")
    axes.set_xlabel("MMD (unbiased: below 0, no difference found)")
