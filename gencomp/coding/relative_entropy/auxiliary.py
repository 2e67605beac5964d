"""The Gaussian formulas of relative entropy coding in pieces (Flamich et al., 2020, section 3).

A latent x with prior N(0, 1) and target N(m, s²) is written as a sum of independent pieces:

    x = a_1 + … + a_K,   a_k ~ N(0, v_k) under the prior,   v_1 + … + v_K = 1.

The prior of the partial sum b_k = a_1 + … + a_k is N(0, t_k) with the *time* t_k = v_1 + … + v_k,
and given x the sum b_k is N(t_k x, t_k (1 − t_k)) under both laws. Everything below follows from
that. A general pair N(μ_p, σ_p²), N(μ_q, σ_q²) is standardised first: m = (μ_q − μ_p)/σ_p and
s = σ_q/σ_p. All functions work elementwise; times are above 0 and at most 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def target_of_sum(mean: Floats, scale: Floats, time: Floats | float) -> tuple[Floats, Floats]:
    """The mean and the variance of a partial sum under the target."""
    return mean * time, scale**2 * time**2 + time * (1 - time)


def coefficients(mean: Floats, scale: Floats, time: Floats | float) -> tuple[Floats, Floats]:
    """The coefficients of b and b² in the logarithm of q(b)/p(b) of a partial sum b.

    They tell sums of one time apart; the constant beside them is left out. The weight of a path
    a_1, …, a_k depends on its sum alone, and at time 1 it is q(x)/p(x).
    """
    centre, variance = target_of_sum(mean, scale, time)
    return centre / variance, (1 / time - 1 / variance) / 2


def cumulative_kl(mean_D: Floats, scale_D: Floats, time_T: Floats) -> Floats:
    """The relative entropy in nats of the partial sums at each time, summed over D latents, [T].

    The relative entropy of piece k, averaged over the target of the pieces before it, is the
    difference of the values at t_k and t_{k−1}; the value at time 1 is that of the latents. With
    the share ρ = (1 − t) + t s² of the prior's variance that is left at time t, it is
    ½ Σ m² t − (1 − ρ) − ln ρ.
    """
    left_TD = (1 - time_T[:, None]) + time_T[:, None] * scale_D**2
    each_TD = mean_D**2 * time_T[:, None] - (1 - left_TD) - np.log(left_TD)
    return np.asarray(each_TD.sum(axis=1) / 2)


def kl(mean_D: Floats, scale_D: Floats) -> float:
    """The relative entropy of the target to the prior in nats, summed over D latents."""
    return float(cumulative_kl(mean_D, scale_D, np.ones(1))[0])


def kl_rate(mean_D: Floats, scale_D: Floats, time_T: Floats) -> Floats:
    """The derivative of `cumulative_kl` by time, [T]: ½ Σ m² + t (1 − s²)² / ρ."""
    left_TD = (1 - time_T[:, None]) + time_T[:, None] * scale_D**2
    bend_TD = time_T[:, None] * (1 - scale_D**2) ** 2 / left_TD
    return np.asarray((float(mean_D @ mean_D) + bend_TD.sum(axis=1)) / 2)
