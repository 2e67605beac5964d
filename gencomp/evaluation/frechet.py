"""Fréchet distance between Gaussian fits of features (Heusel et al., 2017).

    d² = |μ₁ − μ₂|² + tr C₁ + tr C₂ − 2 tr (C₁^½ C₂ C₁^½)^½

with means and unbiased covariances from sums that merge, and the last trace from the eigenvalues of
a symmetric matrix. The estimate is biased upwards, the more so the fewer images; compare distances
at equal counts only.

The interval: a bootstrap that recomputed the distance for each resample would need two
decompositions of a 2048×2048 matrix a thousand times, and each resample has fewer distinct images,
so its distances would be biased upwards once more and their percentiles lie beside the estimate.
Instead the first-order change of the distance with the weight of each image (its influence
function, below) is computed once, and the bootstrap runs over the images with it: the interval has
the bootstrap's width and lies around the estimate. In

    dd² = 2 (μ₁ − μ₂)·(x − μ₁) + |x − μ₁|² − tr C₁ − (x − μ₁)ᵀ T (x − μ₁) + tr T C₁

for an image x of the first set, T = C₁^−½ (C₁^½ C₂ C₁^½)^½ C₁^−½ is the linear part of the optimal
transport from the first Gaussian to the second.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import torch
from torch import Tensor


class FeatureSums:
    """Sufficient statistics of a Gaussian: count, sum and sum of outer products, float64.

    Merged sums are those of all features at once, to rounding.
    """

    def __init__(self, dimension: int) -> None:
        self.count = 0
        self.total_D = torch.zeros(dimension, dtype=torch.float64)
        self.products_DD = torch.zeros(dimension, dimension, dtype=torch.float64)

    def add(self, features_ND: Tensor) -> None:
        features = features_ND.double()
        self.count += len(features)
        self.total_D += features.sum(0)
        self.products_DD.addmm_(features.T, features)

    def merge(self, other: FeatureSums) -> None:
        self.count += other.count
        self.total_D += other.total_D
        self.products_DD += other.products_DD

    def gaussian(self) -> Gaussian:
        """
        Raises:
            ValueError: fewer than two features.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs two images or more, not {self.count}")
        mean = self.total_D / self.count
        scatter = self.products_DD - self.count * torch.outer(mean, mean)
        return Gaussian(mean, scatter / (self.count - 1))


class Gaussian:
    """Mean [D] and covariance [D, D], float64."""

    def __init__(self, mean_D: Tensor, covariance_DD: Tensor) -> None:
        self.mean_D = mean_D.double()
        covariance = covariance_DD.double()
        self.covariance_DD = (covariance + covariance.T) / 2

    @property
    def trace(self) -> float:
        return float(self.covariance_DD.trace())

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues that are not rounding errors, and their vectors in columns."""
        values, vectors = torch.linalg.eigh(self.covariance_DD)
        real = values > values[-1].clamp_min(0) * torch.finfo(values.dtype).eps * len(values)
        return values[real], vectors[:, real]


class Transport:
    """The optimal transport from one Gaussian to another.

    Attributes:
        trace: tr (C₁^½ C₂ C₁^½)^½.
        factor_DK: F with F Fᵀ = T on the support of the first.
    """

    def __init__(self, first: Gaussian, second: Gaussian) -> None:
        values, vectors = first.spectrum
        root = vectors * values.sqrt()
        squares, turns = torch.linalg.eigh(root.T @ second.covariance_DD @ root)
        roots = squares.clamp_min(0).sqrt()
        self.trace = float(roots.sum())
        self.factor_DK = (vectors / values.sqrt()) @ turns * roots.sqrt()


def distance(first: Gaussian, second: Gaussian, transport: Transport | None = None) -> float:
    """d² of two Gaussians, at least 0.

    Args:
        first, second: in either order.
        transport: from the first to the second, where it is known.
    """
    trace = (transport or Transport(first, second)).trace
    means = float((first.mean_D - second.mean_D).square().sum())
    return max(means + first.trace + second.trace - 2 * trace, 0.0)


def influence(
    blocks: Iterable[Tensor], own: Gaussian, other: Gaussian, transport: Transport | None = None
) -> Tensor:
    """How the distance changes with the weight of each image, to first order; float64 [N], mean 0.

    Args:
        blocks: the features [n, D] behind `own`, in order.
        own: of these features.
        other: of the set they are compared with.
        transport: from `own` to `other`, where it is known.
    """
    factor_DK = (transport or Transport(own, other)).factor_DK
    shift_D = 2 * (own.mean_D - other.mean_D)
    parts = []
    for features_ND in blocks:
        centred = features_ND.double() - own.mean_D
        transported = (centred @ factor_DK).square().sum(1)
        parts.append(centred @ shift_D + centred.square().sum(1) - transported)
    change_N = torch.cat(parts)
    return change_N - change_N.mean()
