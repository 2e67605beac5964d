"""Importance sampling: the best of N candidates, or one drawn by their weights.

    sender      x_i ~ p for i = 0 … N − 1,  i* drawn with P(i) ∝ r(x_i)^α,  r = q/p
    stream      i*, log2 N bits
    receiver    x_i* again

With α = 1 the value is a sample of q if N is well above exp(KL); with fewer candidates it is pulled
to the prior (Havasi, Peharz and Hernández-Lobato, 2019; for the number of candidates Chatterjee and
Diaconis, 2018). With α = ∞ it is the candidate with the largest weight: nearer to the mode than a
sample, which helps a budget that is too small and hurts one that is generous.

Use it where every block must cost the same whole number of bits, at most about 16. Ordered random
coding (`ordered`) draws the same value with fewer bits.
"""

from __future__ import annotations

import numpy as np

from gencomp.coding.latent_model import Floats, Gaussian
from gencomp.coding.relative_entropy.ratios import log_ratio
from gencomp.coding.relative_entropy.shared_randomness import normals, uniforms


def encode(target: Gaussian, seed: int, count: int, sharpness: float = np.inf) -> int:
    """The index of the chosen candidate, 0..count − 1.

    Args:
        target: the target q of the block where its prior is the standard normal distribution.
        seed: the seed of the block.
        count: the number N of candidates.
        sharpness: α, above 0; 1 for a sample of the weights, ∞ for the largest one.
    """
    scores_N = log_ratio(target, normals(seed, 0, count, len(target.mean_D)))
    if np.isfinite(sharpness):
        # The largest of scores with Gumbel noise is a sample of their exponentials.
        gumbel_N = -np.log(-np.log(uniforms(seed, 0, count)[:, 0]))
        scores_N = sharpness * scores_N + gumbel_N
    return int(scores_N.argmax())


def decode(index: int, seed: int, dimensions: int) -> Floats:
    """The candidate that `encode` has chosen, float64 [dimensions]."""
    return normals(seed, index, 1, dimensions)[0]
