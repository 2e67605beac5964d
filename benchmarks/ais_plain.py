"""The published algorithm, plainly: annealed importance sampling as in Huang et al., ICML 2020.

    python benchmarks/ais_plain.py [--kind nll] [--temperatures 2000]

Sigmoid schedule of radius 10; hybrid Monte Carlo of 20 leapfrog steps, unit mass, without jitter;
one step size a chain, from 0.01, which grows by 2 % while the chain's lifetime acceptance is above
0.65 and shrinks by 2 % otherwise; no resampling; two rounds, the second with the step sizes of the
first. Nothing is kept between evaluations: a transition is 25 forward and 21 backward passes, and
log weights are sums of differences of log densities. What the published program does beside it
(garbage collection, files and figures at every temperature) is left out, so that it is the
algorithm that is compared.

The two rounds walk side by side, so that the step sizes need no file. Run as a script it prints the
gap of log Z on the linear decoder of 784 values, whose curve is known: with weights in float64, and
in float32 as published.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from gencomp.rate_distortion import closed_form, schedules
from gencomp.rate_distortion.reduction import LinearReduction
from gencomp.rate_distortion.resampling import log_mean_exp

Kind = Literal["nll", "mse"]
BETA_MAX: dict[Kind, float] = {"nll": 200.0, "mse": 36_000.0}
IMAGES, CHAINS, LEAPFROG, VALUES = 16, 16, 20, 784


@dataclass(frozen=True)
class Problem:
    """Two evaluations of d for chains [I, M, K]: forward alone, and forward and backward."""

    value: Callable[[Tensor], Tensor]  # [I, M]
    gradient: Callable[[Tensor], Tensor]  # [I, M, K]


def by_autograd(decoder: nn.Module, x_IN: Tensor) -> Problem:
    """|x - f(z)|² as anyone would write it in PyTorch."""

    def value(z_IMK: Tensor) -> Tensor:
        mean_IMN = decoder(z_IMK.flatten(0, 1)).view(*z_IMK.shape[:2], -1)
        return (x_IN[:, None] - mean_IMN).square().sum(-1)

    @torch.enable_grad()
    def gradient(z_IMK: Tensor) -> Tensor:
        z_IMK = z_IMK.detach().requires_grad_()
        return torch.autograd.grad(value(z_IMK).sum(), z_IMK)[0]

    return Problem(torch.no_grad()(value), gradient)


class Chains(NamedTuple):
    z_IMK: Tensor
    log_weight_IM: Tensor  # float64
    single_weight_IM: Tensor  # the same sums in float32
    accepted_IM: Tensor  # moves so far


def start(images: int, chains: int, latent_dim: int, dtype: torch.dtype) -> Chains:
    zeros = torch.zeros(images, chains)
    return Chains(
        torch.randn(images, chains, latent_dim, dtype=dtype), zeros.double(), zeros, zeros
    )


@torch.no_grad()
def transition(
    problem: Problem, chains: Chains, before: float, beta: float, eps_IM: Tensor
) -> Chains:
    """Reweight from ``before`` to ``beta``, then move."""
    z = chains.z_IMK
    new, old = (_log_density(problem, z, b) for b in (beta, before))
    chains = chains._replace(
        log_weight_IM=chains.log_weight_IM + (new.double() - old.double()),
        single_weight_IM=chains.single_weight_IM + (new.float() - old.float()),
    )
    eps = eps_IM[..., None].to(z.dtype)

    def force(z: Tensor) -> Tensor:
        return torch.add(z, problem.gradient(z), alpha=beta)

    v = torch.randn_like(z)
    start_energy = _kinetic(v) - _log_density(problem, z, beta)
    q, v = z, torch.addcmul(v, eps, force(z), value=-0.5)
    for step in range(LEAPFROG):
        q = torch.addcmul(q, eps, v)
        v = torch.addcmul(v, eps, force(q), value=-1 if step < LEAPFROG - 1 else -0.5)
    end_energy = _kinetic(v) - _log_density(problem, q, beta)
    accept_IM = torch.rand(start_energy.shape) < (start_energy - end_energy).exp()
    return chains._replace(
        z_IMK=torch.where(accept_IM[..., None], q, z), accepted_IM=chains.accepted_IM + accept_IM
    )


def next_steps(eps_IM: Tensor, accepted_IM: Tensor, transitions: int) -> Tensor:
    """The published rule: by the acceptance since the first transition."""
    factor_IM = torch.where(accepted_IM / transitions > 0.65, 1.02, 0.98)
    return (eps_IM * factor_IM).clamp(1e-4, 0.5)


def two_rounds(
    problem: Problem, images: int, latent_dim: int, beta_max: float, temperatures: int, seed: int
) -> Chains:
    """The measuring round's chains at beta_max."""
    torch.manual_seed(seed)
    betas = schedules.sigmoid(beta_max, temperatures).tolist()
    tuning, measuring = (start(images, CHAINS, latent_dim, torch.float64) for _ in range(2))
    eps_IM = torch.full((images, CHAINS), 0.01)
    for index in range(1, temperatures):
        before, beta = betas[index - 1], betas[index]
        tuning = transition(problem, tuning, before, beta, eps_IM)
        eps_IM = next_steps(eps_IM, tuning.accepted_IM, index)
        measuring = transition(problem, measuring, before, beta, eps_IM)
    return measuring


def surrogate(latent_dim: int, images: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weight [784, K], bias [784] and images [I, 784] of a smooth linear decoder, from formulas."""
    i = torch.arange(1, VALUES + 1, dtype=torch.float64)
    j = torch.arange(1, latent_dim + 1, dtype=torch.float64)
    t = torch.arange(1, images + 1, dtype=torch.float64)[:, None]
    weight_NK = 0.1 * torch.cos(0.37 * i[:, None] * j)
    return weight_NK, 0.2 * torch.sin(0.11 * i), 0.5 + 0.5 * torch.sin(0.05 * i * t + 0.3 * t)


def exact_log_z(kind: Kind, latent_dim: int = 10) -> Tensor:
    beta = torch.tensor([BETA_MAX[kind]], dtype=torch.float64)
    return closed_form.linear_gaussian(*surrogate(latent_dim, IMAGES), beta, kind).log_z_IT[:, 0]


class Gap(NamedTuple):
    """Nats by which log Z falls short, mean over images and repeats, with its standard error."""

    mean: float
    error: float
    single: float  # with float32 weights


def measure_gap(kind: Kind, temperatures: int, repeats: int, seed: int = 7) -> Gap:
    """The gap on the exact reduction of the linear decoder to 10 dimensions, in float64.

    Chains know nothing of each other, so repeats are further rows of the same batch.
    """
    weight_NK, bias_N, x_IN = surrogate(10, IMAGES)
    reduction = LinearReduction(weight_NK, bias_N, x_IN.repeat(repeats, 1), kind)
    problem = Problem(lambda z: reduction.value_and_grad(z)[0], reduction.grad)
    chains = two_rounds(problem, IMAGES * repeats, 10, BETA_MAX[kind], temperatures, seed)
    exact_I = exact_log_z(kind).repeat(repeats)
    gaps = [
        (exact_I - log_mean_exp(weights.double())).view(repeats, IMAGES).mean(1)
        for weights in (chains.log_weight_IM, chains.single_weight_IM)
    ]
    error = gaps[0].std().item() / repeats**0.5 if repeats > 1 else float("nan")
    return Gap(gaps[0].mean().item(), error, gaps[1].mean().item())


def _log_density(problem: Problem, z_IMK: Tensor, beta: float) -> Tensor:
    return -_kinetic(z_IMK) - beta * problem.value(z_IMK)


def _kinetic(v_IMK: Tensor) -> Tensor:
    return 0.5 * v_IMK.square().sum(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=("nll", "mse"), default="nll")
    parser.add_argument("--temperatures", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    gap = measure_gap(options.kind, options.temperatures, options.repeats)
    print(
        f"{options.kind} to {BETA_MAX[options.kind]:g}, {options.temperatures} temperatures: gap "
        f"{gap.mean:.2f} ± {gap.error:.2f} nats ({gap.single:.2f} with float32 weights), "
        f"{time.process_time() - started:.0f} CPU-s for the reduction to 10 dimensions"
    )


if __name__ == "__main__":
    main()
