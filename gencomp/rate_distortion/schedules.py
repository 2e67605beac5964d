"""Schedules of inverse temperatures, which strictly increase from 0 to β_max, float64."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from gencomp.errors import InputError


def sigmoid(beta_max: float, temperatures: int, radius: float = 10.0) -> np.ndarray:
    """A sigmoid of equal steps between -radius and radius, shifted and scaled to [0, beta_max].

    Its lower half is close to log-spaced (Huang et al., 2020).
    """
    if temperatures < 2 or not 0 < beta_max < np.inf:
        raise InputError(
            f"a schedule of {temperatures} temperatures to beta_max {beta_max} is not possible; it "
            "needs at least 2 temperatures and a positive, finite beta_max."
        )
    squashed = expit(np.linspace(-radius, radius, temperatures))
    betas = beta_max * (squashed - squashed[0]) / (squashed[-1] - squashed[0])
    betas[-1] = beta_max
    return check(betas)


def geodesic(betas: np.ndarray, sd_d: np.ndarray, temperatures: int) -> np.ndarray:
    """The schedule with steps of equal thermodynamic length ∫ sd_β[d] dβ.

    For perfect transitions and K steps it is the schedule with the least expected gap, l²/2K per
    chain. (Gelman and Meng: Simulating normalizing constants, 1998; Grosse et al.: Annealing
    between distributions by averaging moments, 2013.)

    Args:
        betas: [P] inverse temperatures, strictly increasing from 0.
        sd_d: [P] the standard deviation of d measured at each of them, averaged over images.
        temperatures: the number of temperatures of the schedule.
    """
    if temperatures < 2:
        raise InputError(f"a schedule needs at least 2 temperatures, not {temperatures}.")
    if not (np.isfinite(sd_d).all() and sd_d.max() > 0):
        raise InputError(
            "the distortion does not vary over the prior (or is not finite), so there is no "
            "rate-distortion curve; does the decoder use its latent?"
        )
    length = _cumulative_length(betas, np.maximum(sd_d, 1e-9 * sd_d.max()))
    schedule = np.interp(np.linspace(0, length[-1], temperatures), length, betas)
    schedule[0], schedule[-1] = 0.0, betas[-1]
    return check(schedule)


def next_by_cess(
    d_IM: Tensor,
    log_weight_IM: Tensor,
    beta: float,
    beta_max: float,
    share: float,
    steps_left: int,
) -> float:
    """The next β at which the conditional effective sample size is a given share of the chains.

    (Zhou, Johansen, Aston: Toward automatic model comparison, 2016.) It needs no decoder. The step
    is at least as long as that of the geometric schedule that reaches β_max in the steps left.

    Args:
        d_IM: the distortions of the chains, float64.
        log_weight_IM: the log weights of the chains at ``beta``, float64.
        beta: the present β.
        beta_max: the last β of the walk.
        share: the share in (0, 1), for the mean over images.
        steps_left: the number of steps that are left after this one.
    """
    weight_IM = torch.softmax(log_weight_IM, -1)
    excess_IM = d_IM - d_IM.min(-1, keepdim=True).values

    def conditional(step: float) -> float:
        ratio_IM = torch.exp(-step * excess_IM)
        square_I = (weight_IM * ratio_IM).sum(-1).square()
        return (square_I / (weight_IM * ratio_IM.square()).sum(-1)).mean().item()

    longest = beta_max - beta
    if steps_left == 0 or conditional(longest) >= share:
        return beta_max
    low, high = 0.0, 1.0  # the 40th root of the share of the longest step: β_max can be far away
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if conditional(longest * middle**40) >= share else (low, middle)
    by_size = beta + longest * low**40
    geometric = beta * (beta_max / beta) ** (1 / (steps_left + 1)) if beta else 0.0
    return max(by_size, geometric)


def thermodynamic_length(betas: np.ndarray, sd_d: np.ndarray) -> float:
    """The length ∫ sd_β[d] dβ by the trapezoid rule."""
    return float(_cumulative_length(betas, sd_d)[-1])


def expected_gap(betas: np.ndarray, pilot_betas: np.ndarray, sd_d: np.ndarray) -> float:
    """The mean shortfall of log Z, in nats, of one chain that moves independently at each β.

    It is Σ_j KL(q_{β_j} ‖ q_{β_{j+1}}) = Σ_j ∫ (β_{j+1} - β) Var_β[d] dβ over each step, or about
    ½ Σ (Δβ)² Var_β[d]. For steps of equal thermodynamic length l it is l²/2K. Chains whose moves
    depend on each other lag behind by more: in steps that are small against the change of q_β, the
    shortfall is this one times the integrated autocorrelation time 1 + 2 Σ ρ of d, counted in
    transitions. (Neal: Annealed importance sampling, 2001; Sivak and Crooks: Thermodynamic metrics
    and optimal paths, 2012.)

    Args:
        betas: [T] the schedule.
        pilot_betas: [P] inverse temperatures from 0 to the schedule's last one or beyond.
        sd_d: [P] the standard deviation of d at each of them.
    """
    grid = np.union1d(betas, pilot_betas[pilot_betas < betas[-1]])
    variance = np.interp(grid, pilot_betas, sd_d**2)
    left, right = grid[:-1], grid[1:]
    end = betas[np.searchsorted(betas, right)]  # of the step that each piece of the grid lies in
    # Simpson's rule is exact for the product of two linear functions.
    pieces = (
        (end - left) * variance[:-1]
        + (2 * end - left - right) * (variance[:-1] + variance[1:])
        + (end - right) * variance[1:]
    )
    return float(((right - left) / 6 * pieces).sum())


def report_points(temperatures: int, points: int) -> list[int]:
    """The indices of at most `points` temperatures, evenly spaced over all steps to the last."""
    if temperatures < 2 or points < 1:
        raise InputError(
            f"cannot report {points} points of {temperatures} temperatures; it takes "
            "at least 1 point and at least 2 temperatures."
        )
    last = temperatures - 1
    return sorted({round(last * (point + 1) / points) for point in range(points)} - {0})


def check(betas: np.ndarray) -> np.ndarray:
    """The schedule as float64.

    Raises:
        InputError: the schedule does not start at 0, is not finite or does not strictly increase.
    """
    betas = np.ascontiguousarray(betas, dtype=np.float64)
    if betas.ndim != 1 or len(betas) < 2 or betas[0] != 0 or not np.isfinite(betas).all():
        raise InputError("a schedule is a list of at least 2 finite inverse temperatures from 0.")
    if (np.diff(betas) <= 0).any():
        at = int(np.argmax(np.diff(betas) <= 0))
        raise InputError(f"the schedule does not increase after temperature {at} ({betas[at]}).")
    return betas


def _cumulative_length(betas: np.ndarray, sd_d: np.ndarray) -> np.ndarray:
    steps = 0.5 * (sd_d[1:] + sd_d[:-1]) * np.diff(betas)
    return np.concatenate([[0.0], np.cumsum(steps)])
