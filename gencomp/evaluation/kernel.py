"""Kernel distances (unbiased MMD²) between features, and between latents and their prior.

A distance is the mean over S disjoint subsets of about a thousand images. Item i belongs to subset
i mod S, so the subsets depend neither on how images are divided into blocks nor on chance, and
neighbours, which may be crops of one photograph, are in different subsets.

**The estimate.** Of two independent samples it is the U-statistic (Gretton et al., 2012, eq. 3)

    mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) − 2 mean_{i,j} k(x_i, y_j).

Features of images and of their reconstructions are pairs (x_i, y_i) of dependent vectors. There the
last mean must leave out i = j as well, since k(x_i, y_i) does not estimate E k(x, y) of independent
x and y: of n pairs, it would move the estimate by −2/n (E k(x_i, y_i) − E k(x_i, y_j)), which is of
the size of published distances. The estimate is 0 on average where the distributions are equal, so
it is negative about every other time.

**Its error.** Each mean of kernels is split into its value, the effects of the single items, and
the rest, which sums to 0 over each item (Hoeffding, 1948; as the analysis of variance of a diallel
cross, Griffing, 1956). That gives unbiased estimates of the two parts of the variance:

    Var = L + Q,    L = 4 Var(effect of x)/m + 4 Var(effect of y)/n,
                    Q = 2 Var(rest of x, x)/m(m−1) + 2 Var(rest of y, y)/n(n−1)
                        + 4 Var(rest of x, y)/mn.

Where the distributions are equal, L is 0 (the U-statistic is degenerate). A bootstrap of the images
does not know this: it takes the rest, as it remains in the estimated effects, for effects, and its
standard errors are √3 times too large.

**The interval** of the distance θ holds all θ at which the estimate has a probable error, as
Wilson's interval of a proportion does: (estimate − θ)² ≤ t² (Q + c θ), where c θ stands for L. Both
L and θ grow with the square of a small difference between the distributions. The constant c is the
greater of two estimates of L/θ, of which the unbiased one serves where the distance is large
against its error, and the other one, from sums that include i = j, where it is small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from gencomp.evaluation import intervals
from gencomp.losses import MMD_SCALES

SUBSET = 1000
INTERVAL_RULE = "score interval from the components of the variance"
_LEAST = 4  # items whose effects and rest can be told apart

# ([M, D], [N, D]) -> [M, N]
Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


class KernelDistance(NamedTuple):
    """An estimate with the parts of its variance.

    Attributes:
        value: the unbiased estimate, which may be negative.
        linear: L, the unbiased estimate of the variance that comes from the effects of single
            items; it may be negative.
        quadratic: Q, the rest of the variance; not a number for fewer than four items.
        biased_value, biased_linear: θ and L with i = j; neither is negative.
        degrees: the degrees of freedom of L.
    """

    value: float
    linear: float
    quadratic: float
    biased_value: float
    biased_linear: float
    degrees: float

    @property
    def standard_error(self) -> float:
        """The standard error at the estimate; not a number if it is unknown."""
        return math.sqrt(max(self.linear, 0.0) + self.quadratic)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The ends of the interval of `intervals.LEVEL`; None where the error is unknown."""
        if not math.isfinite(self.quadratic):
            return None
        linear = max(self.linear, 0.0)
        # Q has too many degrees of freedom to matter (Welch and Satterthwaite).
        share = linear / (linear + self.quadratic) if linear else 0.0
        t = intervals.quantile(self.degrees / share**2 if share else math.inf)
        least = t * math.sqrt(self.quadratic)
        ratios = [(linear, max(self.value, least)), (self.biased_linear, self.biased_value)]
        slope = max((above / below for above, below in ratios if below > 0), default=0.0)
        half = slope * t**2 / 2
        root = math.sqrt(max(half**2 + 2 * half * self.value + least**2, 0.0))
        # A distance below 0 would have the error of distance 0.
        return self.value - max(root - half, least), self.value + max(root + half, least)


def cubic(x_MD: np.ndarray, y_ND: np.ndarray) -> np.ndarray:
    """The kernel k = (x·y/D + 1)³ for features (Bińkowski et al., 2018)."""
    return (x_MD @ y_ND.T / x_MD.shape[1] + 1) ** 3


def inverse_multiquadric(x_MD: np.ndarray, y_ND: np.ndarray) -> np.ndarray:
    """The kernel k = Σ_s C_s / (C_s + |x − y|²) with C_s = 2·D·s for latents.

    It is the kernel of `gencomp.losses.mmd`, but for latents in units of the prior's standard
    deviation, which the loss has in C_s.
    """
    squares_MN = (x_MD**2).sum(1)[:, None] + (y_ND**2).sum(1) - 2 * x_MD @ y_ND.T
    total_MN = np.zeros_like(squares_MN)
    for scale in MMD_SCALES:
        constant = 2 * x_MD.shape[1] * scale
        total_MN += constant / (constant + squares_MN)
    return total_MN


def subsets(first: int, second: int, rows: int | None = None) -> int:
    """The number of subsets of two sets of these sizes.

    Each subset has four items or more of both sets, as its error needs, if the sets have them.

    Args:
        first, second: the number of items of each set.
        rows: the number of rows of features of the larger set; by default a row an item.

    Raises:
        ValueError: one of the sets has fewer than two items.
    """
    if min(first, second) < 2:
        raise ValueError(f"a kernel distance needs two images or more, not {min(first, second)}")
    rows = max(first, second) if rows is None else rows
    return max(1, min(-(-rows // SUBSET), min(first, second) // _LEAST))


def members(subset: int, count: int, items: int) -> np.ndarray:
    """The item numbers of one of `count` subsets."""
    return np.arange(subset, items, count)


def distance(
    x_MD: np.ndarray, y_ND: np.ndarray, paired: bool, kernel: Kernel = cubic
) -> KernelDistance:
    """The distance of two sets of features that are in memory, as the mean over their subsets.

    Args:
        x_MD, y_ND: the features of both sides.
        paired: whether row i of both sides belongs to one image.
        kernel: the kernel of float64 features.

    Raises:
        ValueError: one of the sides has fewer than two rows.
    """
    count = subsets(len(x_MD), len(y_ND))
    of_each = [
        subset_distance(
            x_MD[members(i, count, len(x_MD))], y_ND[members(i, count, len(y_ND))], paired, kernel
        )
        for i in range(count)
    ]
    return mean(of_each)


def subset_distance(
    x_MD: np.ndarray,
    y_ND: np.ndarray,
    paired: bool,
    kernel: Kernel = cubic,
    patches: tuple[np.ndarray, np.ndarray] | None = None,
) -> KernelDistance:
    """The distance of one subset, float64, from its two images or more on each side.

    Args:
        x_MD, y_ND: the features of both sides: a row for each image, or rows for its patches.
        paired: whether image i of both sides is the same one; then both have equally many.
        kernel: the kernel of float64 features.
        patches: the number of consecutive rows that belong to each image of both sides; by default
            every row is an image.
    """
    x, y = x_MD.astype(np.float64), y_ND.astype(np.float64)
    within_x, within_y, between = kernel(x, x), kernel(y, y), kernel(x, y)
    if patches is not None:
        of_x, of_y = patches
        within_x, within_y = _of_images(within_x, of_x, of_x), _of_images(within_y, of_y, of_y)
        between = _of_images(between, of_x, of_y)
    if paired:
        return _of_pairs(within_x + within_y - between - between.T)
    return _of_samples(within_x, within_y, between)


def mean(distances: Sequence[KernelDistance]) -> KernelDistance:
    """The mean of the distances of all subsets, which are independent."""
    count = len(distances)
    every = KernelDistance(*(math.fsum(values) for values in zip(*distances, strict=True)))
    return KernelDistance(
        value=every.value / count,
        linear=every.linear / count**2,
        quadratic=every.quadratic / count**2,
        biased_value=every.biased_value / count,
        biased_linear=every.biased_linear / count**2,
        degrees=every.degrees,
    )


class _Symmetric(NamedTuple):
    """A symmetric matrix outside its diagonal: its mean, the effects of rows, and the rest.

    The effects sum to 0, and the rest sums to 0 over each row; of the rest there is the variance.
    """

    mean: float
    effects_N: np.ndarray
    rest: float

    @classmethod
    def of(cls, matrix_NN: np.ndarray) -> _Symmetric:
        count = len(matrix_NN)
        rows_N = _means_of_others(matrix_NN)
        mean = float(rows_N.mean())
        effects_N = (rows_N - mean) * (count - 1) / (count - 2)
        rest_NN = matrix_NN - mean - effects_N[:, None] - effects_N
        np.fill_diagonal(rest_NN, 0)
        return cls(mean, effects_N, float((rest_NN**2).sum()) / (count * (count - 3)))


def _of_images(kernel_PQ: np.ndarray, patches_M: np.ndarray, patches_N: np.ndarray) -> np.ndarray:
    """The kernel of images, [M, N], from that of their patches.

    It is the sum over the patches of two images, in units of the mean number of patches. So its
    mean over pairs of images weights every patch alike, and no patch is compared with another one
    of its image or of that image's reconstruction.
    """
    begins_M, begins_N = (np.cumsum(counts) - counts for counts in (patches_M, patches_N))
    sums_MN = np.add.reduceat(np.add.reduceat(kernel_PQ, begins_M, axis=0), begins_N, axis=1)
    found: np.ndarray = sums_MN / (patches_M.mean() * patches_N.mean())
    return found


def _of_pairs(kernel_NN: np.ndarray) -> KernelDistance:
    """The distance from k(x_i, x_j) + k(y_i, y_j) − k(x_i, y_j) − k(y_i, x_j)."""
    count = len(kernel_NN)
    if count < _LEAST:
        return _without_error(float(_means_of_others(kernel_NN).mean()))
    found = _Symmetric.of(kernel_NN)
    effect = _variance(found.effects_N)
    return KernelDistance(
        value=found.mean,
        linear=4 * (effect - found.rest / (count - 2)) / count,
        quadratic=2 * found.rest / (count * (count - 1)),
        biased_value=float(kernel_NN.mean()),
        biased_linear=4 * effect / count,
        degrees=count - 1,
    )


def _of_samples(
    within_MM: np.ndarray, within_NN: np.ndarray, between_MN: np.ndarray
) -> KernelDistance:
    """The distance of independent samples from the kernels within both and between them."""
    (rows, columns), middle = between_MN.shape, float(between_MN.mean())
    if min(rows, columns) < _LEAST:
        within = _means_of_others(within_MM).mean() + _means_of_others(within_NN).mean()
        return _without_error(float(within) - 2 * middle)
    x, y = _Symmetric.of(within_MM), _Symmetric.of(within_NN)
    of_x_M, of_y_N = between_MN.mean(1) - middle, between_MN.mean(0) - middle
    rest_MN = between_MN - middle - of_x_M[:, None] - of_y_N
    rest = float((rest_MN**2).sum()) / ((rows - 1) * (columns - 1))
    effect_x, effect_y = _variance(x.effects_N - of_x_M), _variance(y.effects_N - of_y_N)
    unbiased_x = effect_x - x.rest / (rows - 2) - rest / columns
    unbiased_y = effect_y - y.rest / (columns - 2) - rest / rows
    linear_x, linear_y = 4 * effect_x / rows, 4 * effect_y / columns
    squares = linear_x**2 / (rows - 1) + linear_y**2 / (columns - 1)
    return KernelDistance(
        value=x.mean + y.mean - 2 * middle,
        linear=4 * unbiased_x / rows + 4 * unbiased_y / columns,
        quadratic=2 * x.rest / (rows * (rows - 1))
        + 2 * y.rest / (columns * (columns - 1))
        + 4 * rest / (rows * columns),
        biased_value=float(within_MM.mean() + within_NN.mean()) - 2 * middle,
        biased_linear=linear_x + linear_y,
        degrees=(linear_x + linear_y) ** 2 / squares if squares else rows + columns - 2,
    )


def _without_error(value: float) -> KernelDistance:
    unknown = math.nan
    return KernelDistance(value, unknown, unknown, unknown, unknown, degrees=1)


def _means_of_others(matrix_NN: np.ndarray) -> np.ndarray:
    """The mean of each row outside the diagonal."""
    result: np.ndarray = (matrix_NN.sum(1) - matrix_NN.diagonal()) / (len(matrix_NN) - 1)
    return result


def _variance(effects_N: np.ndarray) -> float:
    """The variance of effects, which sum to 0."""
    return float(effects_N @ effects_N) / (len(effects_N) - 1)
