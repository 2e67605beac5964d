"""Hamiltonian Monte Carlo for q_β(z) ∝ p(z) exp(-β d(z)), many images and chains at once.

(Duane et al.: Hybrid Monte Carlo, 1987; Neal: MCMC using Hamiltonian dynamics, 2011.) A state
carries d and its gradient, which do not depend on β. So a transition of L leapfrog steps costs L
forward and L backward passes of the decoder, and none of them is for the start point.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from gencomp.rate_distortion.distortion import Distortion
from gencomp.rate_distortion.priors import Prior

JITTER = 0.5  # a chain's step is eps · U[1 - JITTER, 1 + JITTER], since a fixed eps·L can resonate


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


class Kernel(Protocol):
    def __call__(
        self,
        state: State,
        noise: Noise,
        beta: float,
        eps: float,
        factor: Tensor | None = None,
        low_precision: bool = False,
    ) -> tuple[State, Info]: ...


def init(z_IMK: Tensor, distortion: Distortion) -> State:
    """The state at given positions, by one forward and one backward pass."""
    d_IM, grad_d_IMK = distortion.value_and_grad(z_IMK)
    return State(z_IMK, d_IM, grad_d_IMK)


def leapfrog(
    distortion: Distortion,
    prior: Prior,
    state: State,
    momentum_IMK: Tensor,
    beta: float,
    eps_IM: Tensor,
    steps: int,
    factor: Tensor | None = None,
    low_precision: bool = False,
) -> tuple[State, Tensor]:
    """Take ``steps`` leapfrog steps and return the end point and its momentum, not negated.

    With a factor A the steps are those of unit mass in coordinates y with z = A y: z moves by A v,
    and the force is Aᵀ∇U. ``low_precision`` concerns the forces between the end points.
    """
    eps = eps_IM[..., None].to(state.z_IMK.dtype)

    def force(z: Tensor, grad_d: Tensor) -> Tensor:
        return _pull(torch.add(prior.grad(z), grad_d, alpha=beta), factor)

    z, v = state.z_IMK, momentum_IMK
    v = torch.addcmul(v, eps, force(z, state.grad_d_IMK), value=-0.5)
    for _ in range(steps - 1):
        z = torch.addcmul(z, eps, _push(v, factor))
        v = torch.addcmul(v, eps, force(z, distortion.grad(z, low_precision)), value=-1)
    z = torch.addcmul(z, eps, _push(v, factor))
    d, grad_d = distortion.value_and_grad(z)
    v = torch.addcmul(v, eps, force(z, grad_d), value=-0.5)
    return State(z, d, grad_d), v


def build_kernel(distortion: Distortion, prior: Prior, steps: int) -> Kernel:
    """Build a transition ``kernel(state, noise, beta, eps, factor, low_precision)`` that keeps q_β.

    Forces need not be gradients. Every kick and drift is a shear, whatever deterministic function
    of the position the kick uses, so volume is preserved. The sequence of kicks is the same when
    read backwards, so the map is reversible. With ``low_precision`` the sequence is full, low, ...,
    low, full, where both ends use the gradient that the state carries, so it is still a palindrome.
    A poor force costs acceptance, not correctness. Energies are compared in float64.
    """

    def kernel(
        state: State,
        noise: Noise,
        beta: float,
        eps: float,
        factor: Tensor | None = None,
        low_precision: bool = False,
    ) -> tuple[State, Info]:
        eps_IM = eps * (1 - JITTER + 2 * JITTER * noise.jitter_IM)
        momentum_IMK = noise.momentum_IMK.to(state.z_IMK.dtype)
        proposal, momentum_end_IMK = leapfrog(
            distortion, prior, state, momentum_IMK, beta, eps_IM, steps, factor, low_precision
        )
        error_IM = (
            beta * (proposal.d_IM - state.d_IM)
            + (_potential(prior, proposal) - _potential(prior, state))
            + (_half_square(momentum_end_IMK) - _half_square(momentum_IMK))
        )
        # The gradient must be finite too: a chain could never leave a point without one.
        finite_IM = error_IM.isfinite() & proposal.grad_d_IMK.isfinite().all(-1)
        acceptance_IM = torch.where(finite_IM, error_IM.neg().exp().clamp(max=1), 0.0)
        accepted_IM = noise.accept_IM < acceptance_IM
        info = Info(acceptance_IM, accepted_IM, ~finite_IM, error_IM)
        return _select(accepted_IM, proposal, state), info

    return kernel


def _push(v_IMK: Tensor, factor: Tensor | None) -> Tensor:
    """The product A v."""
    if factor is None:
        return v_IMK
    return v_IMK * factor if factor.ndim == 1 else v_IMK @ factor.T


def _pull(g_IMK: Tensor, factor: Tensor | None) -> Tensor:
    """The product Aᵀ g."""
    if factor is None:
        return g_IMK
    return g_IMK * factor if factor.ndim == 1 else g_IMK @ factor


def _potential(prior: Prior, state: State) -> Tensor:
    return prior.potential_and_grad(state.z_IMK)[0]


def _half_square(x_IMK: Tensor) -> Tensor:
    return 0.5 * x_IMK.double().square().sum(-1)


def _select(choose_IM: Tensor, a: State, b: State) -> State:
    # torch.where and not arithmetic, since 0 · nan would poison the chain.
    choose_IM1 = choose_IM[..., None]
    return State(
        torch.where(choose_IM1, a.z_IMK, b.z_IMK),
        torch.where(choose_IM, a.d_IM, b.d_IM),
        torch.where(choose_IM1, a.grad_d_IMK, b.grad_d_IMK),
    )
