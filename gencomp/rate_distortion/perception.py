"""Closed forms of the rate-distortion-perception tradeoff, mostly for a Gaussian source.

The distortion D is the squared error and the perception P the squared Wasserstein-2 distance
between the distributions of source and reconstruction, so P = 0 means equal distributions. For
X ~ N(μ, σ²) all optimal reconstructions are Gaussian with the mean μ, and rates are in bits:

    ρ = √(1 − 2^(−2R))                      the correlation of source and code at the rate R
    D(R, P) = σ² + s² − 2σsρ,  s = max(σ − √P, ρσ)

The scale s of the decoder is all that depends on P, so one encoder serves every P: it is universal
(Zhang, Qian, Chen and Khisti, NeurIPS 2021). The formulas of R(D, P) are those of Lei, Hassani and
Saeedi Bidokhti (2025). The receiver chooses P: a decoder without the constraint and one
with the constraint give the two ends of the curve. Interpolation gives any point between:

    D = D_mmse + (W − √P)²,  W = W2(X, E[X | code]), for √P ≤ W

which holds for every source and every code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gencomp.errors import InputError


def correlation(rate: float) -> float:
    """The correlation ρ = √(1 − 2^(−2R)) of a Gaussian source and its code at a rate of R bits."""
    return math.sqrt(-math.expm1(-2 * rate * math.log(2)))


def gaussian_distortion(rate: float, perception: float, sigma: float = 1.0) -> float:
    """The least squared error D(R, P) of a Gaussian source.

    Args:
        rate: the rate R in bits, at least 0.
        perception: the bound P of the squared Wasserstein-2 distance, at least 0.
        sigma: the standard deviation σ of the source.
    """
    rho = correlation(rate)
    scale = max(sigma - math.sqrt(perception), rho * sigma)
    return sigma**2 + scale**2 - 2 * sigma * scale * rho


def gaussian_rate(distortion: float, perception: float, sigma: float = 1.0) -> float:
    """The least rate R(D, P) of a Gaussian source, in bits.

    Args:
        distortion: the bound D of the squared error, greater than 0.
        perception: the bound P of the squared Wasserstein-2 distance, at least 0.
        sigma: the standard deviation σ of the source.
    """
    variance, gap = sigma**2, math.sqrt(perception)
    if gap > sigma - math.sqrt(abs(variance - distortion)):
        return max(0.5 * math.log2(variance / distortion), 0.0)
    made = sigma - gap
    covariance = max((variance + made**2 - distortion) / 2, 0.0)
    return -0.5 * math.log2(1 - (covariance / (sigma * made)) ** 2) if covariance else 0.0


def active_perception(rate: float, sigma: float = 1.0) -> float:
    """The P = σ²(1 − ρ)² of the decoder with the least error; a larger bound P changes nothing."""
    return (sigma * (1 - correlation(rate))) ** 2


def interpolated_distortion(least: float, distance: float, perception: float) -> float:
    """The least squared error of a fixed code under a bound P, for any source.

    Args:
        least: the squared error of X̃ = E[X | code].
        distance: the Wasserstein-2 distance (not squared) of the distributions of X and X̃.
        perception: the bound P of the squared Wasserstein-2 distance.
    """
    return least + max(distance - math.sqrt(perception), 0.0) ** 2


def limited_randomness_distortion(rate: float, shared: float, sigma: float = 1.0) -> float:
    """The least squared error of a Gaussian source at P = 0 with a limited shared randomness.

    D = 2σ² (1 − ρ(R) ρ(R + K)): the code of R bits and the K shared bits together say how the
    reconstruction depends on them (Saldi, Linder and Yüksel, IEEE Trans. Inf. Theory 2015). With
    K = 0 this is twice the error of the best decoder, and with K = ∞ it is D(R, 0).

    Args:
        rate: the rate R in bits.
        shared: the bits K that sender and receiver share beforehand; math.inf is unlimited.
        sigma: the standard deviation σ of the source.
    """
    joint = 1.0 if math.isinf(shared) else correlation(rate + shared)
    return 2 * sigma**2 * (1 - correlation(rate) * joint)


def shared_randomness_factor(rate: float, shared: float, values: int = 1) -> float:
    """How much limited shared randomness multiplies the squared error of Gaussians at P = 0.

    It is `limited_randomness_distortion` over that with unlimited randomness, for independent
    Gaussians of one variance that share all bits evenly: 1 + ρ without any, and 1 without a limit.

    Args:
        rate: the rate of all values together in bits.
        shared: the bits that sender and receiver share for all values; math.inf is unlimited.
        values: the number of values.
    """
    limited = limited_randomness_distortion(rate / values, shared / values)
    return limited / limited_randomness_distortion(rate / values, math.inf)


class Mixture(NamedTuple):
    """A point between two points.

    Attributes:
        first, second: the numbers of the points.
        share: the share of the second one, 0 to 1.
    """

    first: int
    second: int
    share: float


def best_mixture(points: Sequence[tuple[float, float]], bound: float) -> Mixture | None:
    """The mixture of two codecs with the least distortion whose perception is at most a bound.

    Codecs of which a known part of the images takes the one and the rest the other have the mean
    distortion, and at most the mean perception, since distances between distributions such as those
    of Wasserstein are convex. So this reads the lower convex hull of the points.

    Args:
        points: the distortion and the perception of each codec.
        bound: the greatest perception that is allowed.

    Returns:
        None where every codec's perception is above the bound.
    """
    found: list[tuple[float, Mixture]] = []
    for i, (near_d, near_p) in enumerate(points):
        if near_p > bound:
            continue
        found.append((near_d, Mixture(i, i, 0.0)))
        for j, (far_d, far_p) in enumerate(points):
            if far_p > bound:
                share = (bound - near_p) / (far_p - near_p)
                found.append(((1 - share) * near_d + share * far_d, Mixture(i, j, share)))
    return min(found)[1] if found else None


class DitheredCode(NamedTuple):
    """A dithered scalar quantizer on a Gaussian source, with two linear decoders.

    Attributes:
        rate: the entropy of a symbol given the dither, in bits.
        least_distortion: the squared error of the best linear decoder.
        preserving_distortion: the squared error of the decoder that restores the variance.
    """

    rate: float
    least_distortion: float
    preserving_distortion: float


def dithered_gaussian(step: float, sigma: float = 1.0) -> DitheredCode:
    """Subtractive dither and an unbounded grid: y = x + n, where n is uniform on a cell.

    The rate is h(x + n) − log2(step), the mutual information of x and y.

    Args:
        step: the width of a cell, greater than 0.
        sigma: the standard deviation σ of the source.
    """
    if not step > 0:
        raise InputError(f"The step of a quantizer must be positive, not {step}.")
    noise = step**2 / 12
    total = sigma**2 + noise
    least = sigma**2 * noise / total
    preserving = 2 * sigma**2 * (1 - sigma / math.sqrt(total))
    return DitheredCode(
        _uniform_plus_gaussian_entropy(step, sigma) - math.log2(step), least, preserving
    )


def uniform_symbol_entropy(levels: int) -> float:
    """The entropy H(S | U) in bits of the symbol of a latent that is uniform on [−1, 1].

    The L centres are −1 + j·Δ with Δ = 2/(L − 1), and the dither U is uniform on a cell:
    log2(L − 1) + 1 / (2 ln 2 (L − 1)).
    """
    if levels < 2:
        raise InputError(f"A quantizer needs at least 2 levels, not {levels}.")
    return math.log2(levels - 1) + 1 / (2 * math.log(2) * (levels - 1))


def unpenalised_gap(gap: float, penalty_weight: float) -> float:
    """The Wasserstein-1 distance behind the gap that a critic with gradient penalty reports.

    If two distributions differ by a shift of length W, the optimal critic under the penalty
    λ_gp·(|∇D| − 1)² has the slope 1 + W/(2 λ_gp), so its gap is W·(1 + W/(2 λ_gp)). This is solved
    for W; a negative gap, which no trained critic has, is returned as it is.

    Args:
        gap: mean D(x) − mean D(x̂) in units of the images' Euclidean norm.
        penalty_weight: λ_gp, greater than 0.
    """
    if gap <= 0:
        return gap
    return penalty_weight * (math.sqrt(1 + 2 * gap / penalty_weight) - 1)


def unpenalised_slope(gap: float, penalty_weight: float) -> float:
    """The derivative of `unpenalised_gap` by the gap, by which a small error of the gap shrinks."""
    return 1 / math.sqrt(1 + 2 * max(gap, 0.0) / penalty_weight)


def _uniform_plus_gaussian_entropy(step: float, sigma: float) -> float:
    """The differential entropy in bits of N(0, σ²) plus a uniform variable of width `step`."""
    reach = step / 2 + 12 * sigma
    y = np.linspace(-reach, reach, 40_001)
    root = math.sqrt(2) * sigma
    erfc = np.vectorize(math.erfc, otypes=[np.float64])
    # Differences of the upper tails of |y|, since those of the lower ones would cancel.
    far, near = (np.abs(y) + step / 2) / root, (np.abs(y) - step / 2) / root
    density = (erfc(near) - erfc(far)) / (2 * step)
    terms = -density * np.log2(density, out=np.zeros_like(density), where=density > 0)
    return float(np.trapezoid(terms, y))
