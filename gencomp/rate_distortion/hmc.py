"""Hamiltonian Monte Carlo for q_β(z) ∝ exp(-|z|²/2σ² - β d(z)), many images and chains at once.

(Duane et al.: Hybrid Monte Carlo, 1987; Neal: MCMC using Hamiltonian dynamics, 2011.) A state
carries d and its gradient, which do not depend on β: a transition of L leapfrog steps costs L
forward and L backward passes of the decoder, none of them for the start point.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gencomp.rate_distortion.distortion import Distortion

JITTER = 0.5  # a chain's step is eps · U[1 - JITTER, 1 + JITTER]: a fixed eps·L can resonate


class State(NamedTuple):
    z_IMK: Tensor
    d_IM: Tensor  # float64
    grad_d_IMK: Tensor


class Noise(NamedTuple):
    """The randomness of one transition."""

    momentum_IMK: Tensor  # standard normal
    jitter_IM: Tensor  # uniform on (0, 1)
    accept_IM: Tensor  # uniform on (0, 1), float64


class Info(NamedTuple):
    acceptance_IM: Tensor  # min(1, exp(-energy error)), float64; 0 if not finite
    accepted_IM: Tensor  # bool
    nonfinite_IM: Tensor  # bool; such proposals are rejected
    energy_error_IM: Tensor  # H(proposal) - H(start), float64


Kernel = Callable[[State, Noise, float, float], tuple[State, Info]]


def init(z_IMK: Tensor, distortion: Distortion) -> State:
    """A state at given positions: one forward and one backward pass."""
    d_IM, grad_d_IMK = distortion.value_and_grad(z_IMK)
    return State(z_IMK, d_IM, grad_d_IMK)


def leapfrog(
    distortion: Distortion,
    state: State,
    momentum_IMK: Tensor,
    beta: float,
    eps_IM: Tensor,
    steps: int,
    prior_scale: float = 1.0,
) -> tuple[State, Tensor]:
    """``steps`` leapfrog steps with unit mass; the end point and its momentum, not negated."""
    precision = prior_scale**-2
    eps = eps_IM[..., None].to(state.z_IMK.dtype)

    z, grad_d = state.z_IMK, state.grad_d_IMK
    v = momentum_IMK - 0.5 * eps * (precision * z + beta * grad_d)
    for _ in range(steps - 1):
        z = z + eps * v
        v = v - eps * (precision * z + beta * distortion.grad(z))
    z = z + eps * v
    d, grad_d = distortion.value_and_grad(z)
    v = v - 0.5 * eps * (precision * z + beta * grad_d)
    return State(z, d, grad_d), v


def build_kernel(distortion: Distortion, steps: int, prior_scale: float = 1.0) -> Kernel:
    """A transition ``kernel(state, noise, beta, eps)`` that leaves q_β invariant.

    Any deterministic force keeps it invariant (the map stays reversible and preserves volume), so
    float32 forces cost acceptance, not correctness; energies are compared in float64.
    """

    def kernel(state: State, noise: Noise, beta: float, eps: float) -> tuple[State, Info]:
        eps_IM = eps * (1 - JITTER + 2 * JITTER * noise.jitter_IM)
        momentum_IMK = noise.momentum_IMK.to(state.z_IMK.dtype)
        proposal, momentum_end_IMK = leapfrog(
            distortion, state, momentum_IMK, beta, eps_IM, steps, prior_scale
        )
        error_IM = (
            beta * (proposal.d_IM - state.d_IM)
            + (_half_square(proposal.z_IMK) - _half_square(state.z_IMK)) / prior_scale**2
            + (_half_square(momentum_end_IMK) - _half_square(momentum_IMK))
        )
        # The gradient counts too: a point without one could never be left again.
        finite_IM = error_IM.isfinite() & proposal.grad_d_IMK.isfinite().all(-1)
        acceptance_IM = torch.where(finite_IM, error_IM.neg().exp().clamp(max=1), 0.0)
        accepted_IM = noise.accept_IM < acceptance_IM
        info = Info(acceptance_IM, accepted_IM, ~finite_IM, error_IM)
        return _select(accepted_IM, proposal, state), info

    return kernel


def _half_square(x_IMK: Tensor) -> Tensor:
    return 0.5 * x_IMK.double().square().sum(-1)


def _select(choose_IM: Tensor, a: State, b: State) -> State:
    # where, not arithmetic: 0 · nan would poison the chain
    choose_IM1 = choose_IM[..., None]
    return State(
        torch.where(choose_IM1, a.z_IMK, b.z_IMK),
        torch.where(choose_IM, a.d_IM, b.d_IM),
        torch.where(choose_IM1, a.grad_d_IMK, b.grad_d_IMK),
    )
