"""The latents of a system compared with its prior N(0, σ² I), in numbers and in a figure.

Suffixes of arrays: N images, M latent dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from gencomp.figures.style import (
    COLOURS,
    GRID,
    INK,
    MARKERS,
    MUTED,
    style,
    titled,
)
from gencomp.losses import MMD_SCALES, mmd

NULL_DRAWS = 200
_NULL_SIZE = 400
_LEVELS = np.concatenate(
    [[0.001, 0.002, 0.005], np.linspace(0.01, 0.99, 99), [0.995, 0.998, 0.999]]
)
_NORMAL_95 = 1.96


class Mmd(NamedTuple):
    """An estimate of the MMD with its standard error over images and samples of the prior."""

    value: float
    standard_error: float

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval by the normal approximation."""
        half = _NORMAL_95 * self.standard_error
        return self.value - half, self.value + half


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


def measure(z_NM: np.ndarray, prior_NM: np.ndarray, variance: float) -> Mmd:
    """The MMD to the prior, as in `gencomp.losses.mmd`, with its standard error.

    The standard error is that of the first-order (Hájek) projection of the U-statistic: the
    estimate changes with one latent q by 2/n times the centred h(q) = mean k(q, z) − mean k(q, p),
    and in the same way with one sample of the prior. Where latents follow the prior, the projection
    vanishes; then use `null_spread` to see what chance alone gives.

    Args:
        z_NM: the latents.
        prior_NM: the same number of samples of the prior.
        variance: the variance σ² of the prior.
    """
    z, prior = torch.from_numpy(z_NM).double(), torch.from_numpy(prior_NM).double()
    size = len(z)
    zz, pp, zp = (_kernel(a, b, variance) for a, b in ((z, z), (prior, prior), (z, prior)))
    h_z = (zz.sum(1) - zz.diagonal()) / (size - 1) - zp.mean(1)
    h_p = (pp.sum(1) - pp.diagonal()) / (size - 1) - zp.mean(0)
    error = 2 * math.sqrt(float(h_z.var() + h_p.var()) / size)
    return Mmd(float(mmd(z, prior, variance)), error)


def null_spread(
    size: int, dimensions: int, variance: float, sample: Callable[[int, int], np.ndarray]
) -> np.ndarray:
    """The MMDs that chance alone gives, between pairs of sets of prior samples, [NULL_DRAWS].

    Between equal distributions the statistic is degenerate, so its spread is proportional to 1/size
    (Gretton et al., 2012). So large sets are replaced by smaller ones, whose MMDs are scaled.

    Args:
        size: the number of samples in each set.
        dimensions: the number m of latent dimensions.
        variance: the variance σ² of the prior.
        sample: maps (number of a draw, count) to [count, m] samples of the prior.
    """
    drawn = min(size, _NULL_SIZE)
    found = []
    for draw in range(NULL_DRAWS):
        both = torch.from_numpy(sample(draw, 2 * drawn)).double()
        assert both.shape == (2 * drawn, dimensions)
        found.append(float(mmd(both[:drawn], both[drawn:], variance)))
    return np.array(found) * drawn / size


def draw(
    sets: Sequence[LatentSet],
    measured: Sequence[Mmd],
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
    axes: Axes, sets: Sequence[LatentSet], measured: Sequence[Mmd], null: np.ndarray
) -> None:
    """Draw the estimates with 95 % intervals beside the range that chance alone gives."""
    low, high = np.quantile(null, [0.025, 0.975])
    axes.axvspan(low, high, color=GRID, zorder=0)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    for number, one in enumerate(measured):
        axes.errorbar(
            [one.value],
            [number],
            xerr=[_NORMAL_95 * one.standard_error],
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
    axes.set_xlabel("MMD (seven kernels, unbiased)")


def _kernel(a_NM: torch.Tensor, b_NM: torch.Tensor, variance: float) -> torch.Tensor:
    """The inverse multiquadric kernel, summed over the scales, [N, N]."""
    squares = torch.cdist(a_NM, b_NM).square()
    total = torch.zeros_like(squares)
    for scale in MMD_SCALES:
        constant = 2 * a_NM.shape[1] * variance * scale
        total += constant / (constant + squares)
    return total
