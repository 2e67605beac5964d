"""Kernel distances (unbiased MMD²) between features, and between latents and their prior.

A distance is the mean over S disjoint subsets of about a thousand images. Item i belongs to subset
i mod S, so the subsets depend neither on how images are divided into blocks nor on chance, and
neighbours, which may be crops of one photograph, are in different subsets. The estimate may be
negative.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gencomp.evaluation import bootstrap
from gencomp.losses import MMD_SCALES

SUBSET = 1000

# ([M, D], [N, D]) -> [M, N]
Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


class KernelDistance(NamedTuple):
    """An estimate with the replicates of its bootstrap, [REPLICATES]."""

    value: float
    replicates_R: np.ndarray


def cubic(x_MD: np.ndarray, y_ND: np.ndarray) -> np.ndarray:
    """The kernel k = (x·y/D + 1)³ for features (Bińkowski et al., 2018)."""
    return (x_MD @ y_ND.T / x_MD.shape[1] + 1) ** 3


def inverse_multiquadric(x_MD: np.ndarray, y_ND: np.ndarray) -> np.ndarray:
    """The kernel k = Σ_s C_s / (C_s + |x − y|²) with C_s = 2·D·s for latents.

    It is the kernel of `gencomp.losses.mmd`, but for latents in units of the prior's standard
    deviation, which the loss has in C_s.
    """
    squares_MN = (x_MD**2).sum(1)[:, None] + (y_ND**2).sum(1) - 2 * x_MD @ y_ND.T
    constants = [2 * x_MD.shape[1] * scale for scale in MMD_SCALES]
    return np.sum([constant / (constant + squares_MN) for constant in constants], axis=0)


def subsets(first: int, second: int) -> int:
    """The number of subsets of two sets of these sizes; each has at least two items of both sets.

    Raises:
        ValueError: one of the sets has fewer than two items.
    """
    if min(first, second) < 2:
        raise ValueError(f"a kernel distance needs two images or more, not {min(first, second)}")
    return max(1, min(-(-max(first, second) // SUBSET), min(first, second) // 2))


def members(subset: int, count: int, items: int) -> np.ndarray:
    """The item numbers of one of `count` subsets."""
    return np.arange(subset, items, count)


def subset_distance(
    x_MD: np.ndarray,
    y_ND: np.ndarray,
    paired: bool,
    seed: int,
    subset: int = 0,
    kernel: Kernel = cubic,
) -> KernelDistance:
    """The unbiased MMD² of one subset and of its resamples, float64.

    The estimate leaves out the pairs of an image with itself, and a resample leaves out the pairs
    of copies of one image, so that resampling adds no bias.

    Args:
        x_MD, y_ND: the features of both sides.
        paired: whether row i of both sides belongs to one image, so that both are resampled
            together.
        seed: the seed of the bootstrap.
        subset: the number of the subset.
        kernel: the kernel of float64 features.
    """
    x, y = x_MD.astype(np.float64), y_ND.astype(np.float64)
    within_x, within_y, between = kernel(x, x), kernel(y, y), kernel(x, y)
    np.fill_diagonal(within_x, 0)
    np.fill_diagonal(within_y, 0)

    def statistic(u_RM: np.ndarray, v_RN: np.ndarray) -> np.ndarray:
        return (
            _form(u_RM, within_x, u_RM) / (u_RM.sum(1) ** 2 - (u_RM**2).sum(1))
            + _form(v_RN, within_y, v_RN) / (v_RN.sum(1) ** 2 - (v_RN**2).sum(1))
            - 2 * _form(u_RM, between, v_RN) / (u_RM.sum(1) * v_RN.sum(1))
        )

    value = statistic(np.ones((1, len(x))), np.ones((1, len(y))))[0]
    u_RM = bootstrap.resampled_counts(len(x), seed, 2 * subset)
    v_RN = u_RM if paired else bootstrap.resampled_counts(len(y), seed, 2 * subset + 1)
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample may hold one image alone
        return KernelDistance(float(value), statistic(u_RM, v_RN))


def mean(distances: list[KernelDistance]) -> KernelDistance:
    """The mean of the distances of all subsets."""
    values = [one.value for one in distances]
    return KernelDistance(
        float(np.mean(values)), np.mean([one.replicates_R for one in distances], axis=0)
    )


def _form(u_RM: np.ndarray, kernel_MN: np.ndarray, v_RN: np.ndarray) -> np.ndarray:
    return np.einsum("rn,rn->r", u_RM @ kernel_MN, v_RN)
