"""Greedy Poisson rejection sampling of one dimension.

    sender      x_i ~ p, arrivals T_1 < T_2 < … of a Poisson process,
                i* = the first i with T_i < σ(r(x_i))
    stream      i* by a Zipf code (`zipf`)
    receiver    x_i* again

The first arrival under the graph of σ(r(x)) is an exact sample of q = r p for the stretch function

    σ(h) = ∫_0^h dη / (w_Q(η) − η w_P(η)),   w_Q(h) = Q(r ≥ h),   w_P(h) = P(r ≥ h)

(Flamich, 2023). As the Poisson functional representation, it takes exp(D_∞) candidates on average;
it stops at the candidate that it sends, and sends at most KL + log2(KL + 1) + 2 bits on average.
The sender needs w_Q and w_P, which one dimension has in closed form.

Use it for single numbers of a few bits, where no bound on the ratio is wanted but its mode is
known; `a_star` is faster from some 5 bits on. With a Zipf code, `ordered` takes as many bits.
"""

from __future__ import annotations

import numpy as np

from gencomp.coding import portable
from gencomp.coding.latent_model import Floats, Gaussian
from gencomp.coding.relative_entropy import ratios
from gencomp.coding.relative_entropy.shared_randomness import normals, uniforms
from gencomp.coding.relative_entropy.zipf import MOST
from gencomp.errors import InputError

_AT_ONCE = 1 << 9
_GRID = 4000


def encode(target: Gaussian, seed: int, most: int = MOST) -> int:
    """The index of the accepted candidate.

    The value is an exact sample unless the search ends at `most` candidates; then it is the last.

    Args:
        target: the target q where its prior is the standard normal distribution, [1].
        seed: the seed of the block.
        most: the largest number of candidates.

    Raises:
        InputError: the target has several dimensions, or its scale is not below 1.
    """
    log_heights, log_stretched = _stretch(target)
    arrival = 0.0
    for first in range(0, most, _AT_ONCE):
        count = min(_AT_ONCE, most - first)
        scores_N = ratios.log_ratio(target, normals(seed, first, count, 1))
        arrivals_N = arrival - np.cumsum(np.log(uniforms(seed, first, count)[:, 0]))
        accepted_N = np.log(arrivals_N) < np.interp(scores_N, log_heights, log_stretched)
        if accepted_N.any():
            return first + int(accepted_N.argmax())
        arrival = float(arrivals_N[-1])
    return most - 1


def decode(index: int, seed: int) -> float:
    """The value of the candidate that `encode` has accepted."""
    return float(normals(seed, index, 1, 1)[0, 0])


def _stretch(target: Gaussian) -> tuple[Floats, Floats]:
    """ln σ(h) at increasing ln h, by quadrature over the half widths of the sets r ≥ h."""
    if len(target.mean_D) != 1:
        raise InputError(
            f"Greedy Poisson rejection sampling takes one dimension, not {len(target.mean_D)}."
        )
    largest = ratios.supremum(target)
    mean, scale = float(target.mean_D[0]), float(target.scale_D[0])
    mode, curvature = mean / (1 - scale**2), (1 - scale**2) / scale**2
    # ln h = D_∞ − curvature·w²/2 at the half width w, from next to nothing to next to all of h.
    widths = np.geomspace(np.sqrt((2 * largest + 60) / curvature), 1e-3 * scale, _GRID)
    log_heights = largest - curvature * widths**2 / 2
    in_prior = portable.normal_cdf(mode + widths) - portable.normal_cdf(mode - widths)
    in_target = portable.normal_cdf((mode + widths - mean) / scale)
    in_target -= portable.normal_cdf((mode - widths - mean) / scale)
    heights = np.exp(log_heights)
    # dη = −η·curvature·w dw, and w dw = w² d(ln w) on the geometric grid.
    slopes = heights * curvature * widths**2 / (in_target - heights * in_prior)
    steps = -np.diff(np.log(widths)) * (slopes[1:] + slopes[:-1]) / 2
    stretched = np.exp(log_heights[0]) + np.concatenate([[0.0], np.cumsum(steps)])
    # Below the grid σ grows like 1/w: a candidate so near to the mode is always accepted in time.
    return log_heights, np.log(stretched)
