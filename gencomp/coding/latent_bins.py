"""Bins of the normal distribution, by which a stack takes samples of latents.

A latent takes one of the values of some bins of its prior, most of which have the same mass 2^-p.
The outermost bin of each side is halved again and again, to 2^-20, since a posterior may lie in the
tail of its prior. The posterior of a bin is its mass under the posterior; the value of a bin is its
median under the prior. Let w be a bin's width where the posterior lies. The bins cost (w/σ_q)⁴/576
nats a latent: to second order, what the image loses by the larger variance of the sample is what
the bins win by having less Kullback-Leibler divergence than the densities (for a posterior that is
exact and much narrower than its prior). So bins as wide as σ_q cost 0.002 nats. They are wider in
the tails of the prior. A bin of mass 2^-p takes p bits of a stack for a prior, and so many initial
bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gencomp.coding import portable
from gencomp.coding.ans import Stack
from gencomp.coding.latent_model import Floats, Gaussian
from gencomp.coding.tables import PRECISION, Integers
from gencomp.errors import InputError

LEAST_DEPTH, MOST_DEPTH = 2, 12

# The mass of the outermost bins is 2^-_TAIL_DEPTH.
_TAIL_DEPTH = 20
# Below this mass of the posterior, its parts are rounding errors, and halves do as well.
_NO_MASS = 2.0**-36


class Bins(NamedTuple):
    """Bins of the standard normal distribution.

    Attributes:
        edges_E: the edges between neighbouring bins, float64 [L − 1].
        values_L: the value that stands for each bin, float64 [L].
        frequencies_L: the mass of each bin in units of 2^-24, int64 [L].
    """

    edges_E: Floats
    values_L: Floats
    frequencies_L: Integers


@lru_cache(MOST_DEPTH)
def bins(depth: int) -> Bins:
    """The bins of mass 2^-depth, the outermost of which are halved on to a mass of 2^-20.

    Raises:
        InputError: the depth is not one of 2 to 12.
    """
    if not LEAST_DEPTH <= depth <= MOST_DEPTH:
        raise InputError(
            f"The bins of a latent have a mass of 2^-p for p = {LEAST_DEPTH} to {MOST_DEPTH}, not"
            f" for {depth}."
        )
    tail_T = np.ldexp(1.0, -np.arange(_TAIL_DEPTH, depth, -1))
    main = np.arange(1, 1 << depth) / (1 << depth)
    edges_E = np.concatenate([tail_T, main, (1 - tail_T)[::-1]])
    bounds = np.concatenate([[0.0], edges_E, [1.0]])
    masses_L = np.diff(bounds)
    return Bins(
        portable.normal_quantile(edges_E),
        portable.normal_quantile(bounds[:-1] + masses_L / 2),
        np.ldexp(masses_L, PRECISION).astype(np.int64),
    )


def standardised(prior: Gaussian, posterior: Gaussian) -> Gaussian:
    """The posterior in units where its prior is the standard normal distribution."""
    return Gaussian(
        (posterior.mean_D - prior.mean_D) / prior.scale_D, posterior.scale_D / prior.scale_D
    )


def values(prior: Gaussian, places_D: Integers, bins_: Bins) -> Floats:
    """The values that stand for the bins of latents, float64 [D]."""
    return prior.mean_D + prior.scale_D * bins_.values_L[places_D]


def costs(posterior: Gaussian, bins_: Bins) -> tuple[float, float]:
    """What bins cost for standardised posteriors: nats an image beyond the ELBO, initial nats.

    The first is Σ_b Q_b (ln Q_b/P_b − ln q(z_b)/p(z_b)), exact where the posterior is.
    """
    mean_D1, scale_D1 = posterior.mean_D[:, None], posterior.scale_D[:, None]
    below_DE = portable.normal_cdf((bins_.edges_E - mean_D1) / scale_D1)
    masses_DL = np.diff(below_DE, axis=1, prepend=0.0, append=1.0)
    logs_DL = np.log(np.maximum(masses_DL, 2.0**-PRECISION))
    prior_L = np.log(bins_.frequencies_L) - PRECISION * np.log(2)
    residuals_DL = (bins_.values_L - mean_D1) / scale_D1
    ratios_DL = (bins_.values_L**2 - residuals_DL**2) / 2 - np.log(scale_D1)
    loss = (masses_DL * (logs_DL - prior_L - ratios_DL)).sum()
    return float(loss), float(-(masses_DL * logs_DL).sum())


def pop(stack: Stack, posterior: Gaussian, bins_: Bins) -> Integers:
    """A sample of the posterior's bins, [D], drawn with bits of the stack."""
    return _search(posterior, bins_, lambda rows_A2, active_A, middle_A: stack.pop(rows_A2))


def push(stack: Stack, places_D: Integers, posterior: Gaussian, bins_: Bins) -> None:
    """Return the bits to the stack; the inverse of `pop`."""
    steps: list[tuple[Integers, Integers]] = []

    def step(rows_A2: Integers, active_A: Integers, middle_A: Integers) -> Integers:
        bits_A = (places_D[active_A] >= middle_A).astype(np.int64)
        steps.append((bits_A, rows_A2))
        return bits_A

    _search(posterior, bins_, step)
    for bits_A, rows_A2 in reversed(steps):
        stack.push(bits_A, rows_A2)


def _search(
    posterior: Gaussian, bins_: Bins, bits: Callable[[Integers, Integers, Integers], Integers]
) -> Integers:
    """Bisect the bins of all latents at once to one bin each, [D].

    So a latent costs about log2 L evaluations of its distribution function and not L of them.

    Args:
        posterior: the standardised posterior.
        bins_: the bins.
        bits: maps the frequencies of the two halves [A, 2], the latents that have two halves left
            [A] and the first bins of the upper halves [A] to the halves that are chosen, 0 or 1.
    """
    count = len(posterior.mean_D)
    low_D, high_D = np.zeros(count, np.int64), np.full(count, len(bins_.values_L))
    below_D, upto_D = np.zeros(count), np.ones(count)
    while (active_A := np.flatnonzero(high_D - low_D > 1)).size:
        middle_A = (low_D[active_A] + high_D[active_A]) // 2
        distance_A = bins_.edges_E[middle_A - 1] - posterior.mean_D[active_A]
        edge_A = portable.normal_cdf(distance_A / posterior.scale_D[active_A])
        rows_A2 = _halves(edge_A - below_D[active_A], upto_D[active_A] - edge_A)
        upper_A = bits(rows_A2, active_A, middle_A) == 1
        low_D[active_A[upper_A]], below_D[active_A[upper_A]] = middle_A[upper_A], edge_A[upper_A]
        lower_A = ~upper_A
        high_D[active_A[lower_A]], upto_D[active_A[lower_A]] = middle_A[lower_A], edge_A[lower_A]
    return low_D


def _halves(lower_A: Floats, upper_A: Floats) -> Integers:
    """The frequencies of two halves in proportion to their masses, [A, 2]."""
    total_A = lower_A + upper_A
    share_A = np.where(total_A > _NO_MASS, lower_A / np.maximum(total_A, _NO_MASS), 0.5)
    whole = 1 << PRECISION
    first_A = np.clip(np.rint(share_A * whole).astype(np.int64), 1, whole - 1)
    return np.stack([first_A, whole - first_A], axis=1)
