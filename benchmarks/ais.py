"""CPU-seconds per transition of the annealed sampler, against a minimal hand-written loop.

    python benchmarks/ais.py [--rounds 5]

Decoders of 784 pixels, 16 images × 16 chains, L = 20, one thread. The loop next to it does the
least that an HMC transition can do for one decoder: 20 forward and 20 backward passes written out
by hand, without autograd, bookkeeping, weights, estimates or keyed random numbers. The two
alternate in the same process; the figures are medians over rounds of CPU time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from gencomp.rate_distortion import ais, schedules
from gencomp.rate_distortion.distortion import SquaredError
from gencomp.rate_distortion.tuning import Tuning

IMAGES, CHAINS, LEAPFROG, PIXELS = 16, 16, 20, 784


def linear_decoder(latent_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(latent_dim, PIXELS))


def deep_decoder(latent_dim: int) -> nn.Sequential:
    """The decoder of the deep MNIST VAE of Huang et al. 2020."""
    sizes = (latent_dim, 1024, 1024, 1024, PIXELS)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1], nn.Sigmoid())


def hand_written_gradient(decoder: nn.Sequential, x_BN: Tensor) -> Callable[[Tensor], tuple]:
    """Residual and gradient of |x - f(z)|² by explicit products."""

    def gradient(z_BK: Tensor) -> tuple[Tensor, Tensor]:
        values = [z_BK]
        for layer in decoder:
            if isinstance(layer, nn.Linear):
                values.append(torch.addmm(layer.bias, values[-1], layer.weight.T))
            else:
                values.append(
                    torch.tanh(values[-1])
                    if isinstance(layer, nn.Tanh)
                    else torch.sigmoid(values[-1])
                )
        residual = values[-1] - x_BN
        back = 2 * residual
        for layer, value in zip(reversed(decoder), reversed(values), strict=False):
            if isinstance(layer, nn.Linear):
                back = back @ layer.weight
            elif isinstance(layer, nn.Tanh):
                back = back * (1 - value * value)
            else:
                back = back * value * (1 - value)
        return residual, back

    return gradient


def minimal_transition(decoder: nn.Sequential, x_IN: Tensor, latent_dim: int) -> Callable[[], None]:
    x_BN = x_IN.repeat_interleave(CHAINS, 0)
    gradient = hand_written_gradient(decoder, x_BN)
    beta, eps = 1.0, 0.01
    with torch.no_grad():
        z = torch.randn(IMAGES * CHAINS, latent_dim)
        residual, grad = gradient(z)
        d = residual.square().sum(-1)

    @torch.no_grad()
    def transition() -> None:
        nonlocal z, d, grad
        v0 = torch.randn_like(z)
        p, g, v = z, grad, v0 - 0.5 * eps * (z + beta * grad)
        for step in range(LEAPFROG):
            p = p + eps * v
            residual, g = gradient(p)
            v = v - (eps if step < LEAPFROG - 1 else 0.5 * eps) * (p + beta * g)
        d1 = residual.square().sum(-1)
        error = beta * (d1 - d) + 0.5 * ((p * p + v * v).sum(-1) - (z * z + v0 * v0).sum(-1))
        accept = torch.rand(len(z)) < torch.exp(-error)
        z, grad = torch.where(accept[:, None], p, z), torch.where(accept[:, None], g, grad)
        d = torch.where(accept, d1, d)

    return transition


def our_transition(decoder: nn.Sequential, x_IN: Tensor, latent_dim: int) -> Callable[[], None]:
    betas = schedules.sigmoid(10.0, 10_000)
    nothing = np.zeros(2)
    tuning = Tuning(
        betas=betas,
        step_sizes=np.full(len(betas), 0.01),
        leapfrog=LEAPFROG,
        latent_dim=latent_dim,
        prior_scale=1.0,
        seed=6,
        pilot_betas=betas[[0, -1]],
        pilot_mean_d=nothing,
        pilot_sd_d=nothing,
        pilot_acceptance=nothing,
    )
    run = ais.Run(SquaredError(decoder.eval(), x_IN), tuning, seed=7, image_ids=range(IMAGES))
    state = ais.start(run, CHAINS)

    def transition() -> None:
        nonlocal state
        state, _ = ais.advance(run, state)

    return transition


def cpu_seconds(transition: Callable[[], None], repeats: int) -> float:
    started = time.process_time()
    for _ in range(repeats):
        transition()
    return (time.process_time() - started) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x_IN = torch.rand(IMAGES, PIXELS)
    print("decoder        ours (CPU-s)   minimal loop (CPU-s)   ratio")
    cases = [
        ("linear k=10", linear_decoder, 10, 20),
        ("deep k=10", deep_decoder, 10, 2),
        ("deep k=100", deep_decoder, 100, 2),
    ]
    for name, build, latent_dim, repeats in cases:
        decoder = build(latent_dim)
        pair = [make(decoder, x_IN, latent_dim) for make in (our_transition, minimal_transition)]
        for transition in pair:
            transition()
        times = [[cpu_seconds(transition, repeats) for transition in pair] for _ in range(rounds)]
        ours, minimal = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(a / b for a, b in times)
        print(f"{name:<14} {ours:>12.4f} {minimal:>22.4f} {ratio:>7.2f}")


if __name__ == "__main__":
    main()
