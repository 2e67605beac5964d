"""The Poisson functional representation and ordered random coding, in any number of dimensions.

    sender      x_i ~ p,  T_i = c_0 E_0 + … + c_i E_i with E_j ~ Exp(1),
                i* = argmax ln r(x_i) − ln T_i
    stream      i* by a Zipf code (`zipf`): small indices are likely, for T grows with i
    receiver    x_i* again

With c_j = 1 the T are the arrivals of a Poisson process and x_i* is an exact sample of q = r p, if
the search goes on until no later candidate can win (Li and El Gamal, 2018): it takes about exp(D_∞)
candidates, and KL + log2(KL + 1) + 5 bits at most. With c_j = N/(N − j) the T are the order
statistics of N exponentials: the value is the one that importance sampling with N candidates draws,
at the Zipf code's fewer bits (Theis and Yosri, 2022). Then N should be exp(KL + 2 sd), where sd is
the deviation of ln r under q, or the value is pulled to the prior.

Use it for blocks of up to about 16 bits; the time is exponential in them. Beyond that beams code
the block in steps.
"""

from __future__ import annotations

import numpy as np

from gencomp.coding.latent_model import Floats, Gaussian
from gencomp.coding.relative_entropy import ratios
from gencomp.coding.relative_entropy.shared_randomness import normals, uniforms
from gencomp.coding.relative_entropy.zipf import MOST

_AT_ONCE = 1 << 10


def candidates(target: Gaussian) -> int:
    """A number N of candidates that samples a target well, exp(KL + 2 sd), at most 65,536."""
    wanted = ratios.divergence(target) + 2 * ratios.deviation(target)
    return min(MOST, int(np.exp(min(wanted, 20.0))) + 1)


def encode(target: Gaussian, seed: int, count: int) -> int:
    """Ordered random coding: the index of the chosen candidate, 0..count − 1.

    Args:
        target: the target q of the block where its prior is the standard normal distribution.
        seed: the seed of the block.
        count: the number N of candidates; `candidates` has a good one.
    """
    scores_N = ratios.log_ratio(target, normals(seed, 0, count, len(target.mean_D)))
    waits_N = _exponentials(seed, 0, count) * (count / (count - np.arange(count)))
    return int((scores_N - np.log(np.cumsum(waits_N))).argmax())


def encode_poisson(target: Gaussian, seed: int, most: int = MOST) -> int:
    """The Poisson functional representation: the index of the chosen candidate.

    The value is an exact sample unless the search ends at `most` candidates, which is likely where
    these are fewer than some times exp(D_∞).

    Raises:
        InputError: a scale of the target is not below 1.
    """
    bound = ratios.supremum(target)
    best, chosen, arrival = -np.inf, 0, 0.0
    for first in range(0, most, _AT_ONCE):
        count = min(_AT_ONCE, most - first)
        scores_N = ratios.log_ratio(target, normals(seed, first, count, len(target.mean_D)))
        arrivals_N = arrival + np.cumsum(_exponentials(seed, first, count))
        values_N = scores_N - np.log(arrivals_N)
        place = int(values_N.argmax())
        if values_N[place] > best:
            best, chosen = float(values_N[place]), first + place
        arrival = float(arrivals_N[-1])
        if bound - np.log(arrival) < best:
            break
    return chosen


def decode(index: int, seed: int, dimensions: int) -> Floats:
    """The candidate that either encoder has chosen, float64 [dimensions]."""
    return normals(seed, index, 1, dimensions)[0]


def _exponentials(seed: int, first: int, count: int) -> Floats:
    return -np.log(uniforms(seed, first, count)[:, 0])
