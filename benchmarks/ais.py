"""What a rate-distortion curve costs: a transition, and a curve that is right to 0.2 nats.

    python benchmarks/ais.py [--rounds 5] [--seeds 12] [--longest 20000]

One thread, CPU time, 16 images × 16 chains, decoders of 784 values; the process starts itself again
with the environment of an evaluation job.

1. CPU-seconds a transition of 20 leapfrog steps, against a minimal loop that does the least that
   such a transition can do: 20 forward and 20 backward passes written out by hand, without
   autograd, weights, estimates or keyed random numbers. The sides alternate.

2. CPU-seconds to a Lagrangian gap (R + βD above the closed form, at β_max) of 0.2 nats, against the
   plain algorithm (ais_plain.py), on a linear decoder with 10 latents. Two factors, both printed:
   transitions until the gap is 0.2, interpolated between lengths that were tried, measured on the
   exact reduction to 10 dimensions; and CPU-seconds a transition on the full decoders. Both sides
   pay for their tuning round. The plain side is granted float64 weights, which it did not have: in
   float32 (also printed) they are off by nats, and the bound is broken.
   ``--longest 60000`` follows the plain side further, where 20,000 are not enough.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import ais_plain
import numpy as np
import torch
from ais_plain import BETA_MAX, CHAINS, IMAGES, LEAPFROG, VALUES, Gap, Kind
from torch import Tensor, nn

from gencomp.networks.decoders import linear_decoder, mlp_decoder
from gencomp.rate_distortion import ais, pilot, schedules
from gencomp.rate_distortion.distortion import Distortion, SquaredError
from gencomp.rate_distortion.priors import Gaussian
from gencomp.rate_distortion.reduction import LinearReduction
from gencomp.rate_distortion.tuning import Tuning
from slurm.jobs.options import environment

TARGET = 0.2  # nats
OUR_LEAPFROG = 2  # a dense metric leaves little to be travelled
OUR_LENGTHS: dict[Kind, tuple[int, ...]] = {"nll": (50, 100, 200, 400), "mse": (200, 400, 800)}
PLAIN_LENGTHS = (2_000, 6_000, 20_000, 60_000)


# --- 1. a transition ------------------------------------------------------------------------------


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
    gradient = hand_written_gradient(decoder, x_IN.repeat_interleave(CHAINS, 0))
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


def our_transition(
    decoder: nn.Sequential, x_IN: Tensor, latent_dim: int, low_precision: bool
) -> Callable[[], None]:
    betas, prior = schedules.sigmoid(10.0, 10_000), Gaussian(latent_dim)
    tuning = Tuning(
        betas=betas,
        step_sizes=np.full(len(betas), 0.01),
        leapfrog=LEAPFROG,
        latent_dim=latent_dim,
        prior=prior.identity,
        seed=6,
        low_precision_until=np.inf if low_precision else 0.0,
    )
    distortion = SquaredError(decoder, x_IN, "bfloat16")
    run = ais.Walk(distortion, prior, tuning, seed=7, image_ids=range(IMAGES))
    state = ais.start(run, CHAINS)

    def transition() -> None:
        nonlocal state
        state, _ = ais.advance(run, state)

    return transition


def compare_transitions(rounds: int) -> None:
    print(f"CPU-seconds a transition of {LEAPFROG} leapfrog steps")
    print("decoder        ours   bfloat16 forces   minimal loop   ours / loop")
    cases = [
        ("linear k=10", linear_decoder, 10, 20),
        ("deep k=10", mlp_decoder, 10, 2),
        ("deep k=100", mlp_decoder, 100, 2),
    ]
    for name, build, latent_dim, repeats in cases:
        torch.manual_seed(0)
        decoder = build(latent_dim).eval().requires_grad_(False)
        x_IN = torch.rand(IMAGES, VALUES)
        sides = [
            our_transition(decoder, x_IN, latent_dim, low_precision=False),
            our_transition(decoder, x_IN, latent_dim, low_precision=True),
            minimal_transition(decoder, x_IN, latent_dim),
        ]
        times = alternate(sides, rounds, repeats)
        ours, low, minimal = map(statistics.median, zip(*times, strict=True))
        ratio = statistics.median(a / b for a, _, b in times)
        print(f"{name:<12} {ours:>7.4f} {low:>13.4f} {minimal:>14.4f} {ratio:>12.2f}", flush=True)


# --- 2. a curve -----------------------------------------------------------------------------------


class Length(NamedTuple):
    temperatures: int
    gap: Gap


def our_gap(kind: Kind, temperatures: int, seeds: int) -> Gap:
    reduction = LinearReduction(*ais_plain.surrogate(10, IMAGES), kind)
    exact_I = ais_plain.exact_log_z(kind)
    gaps = []
    for seed in range(seeds):
        tuning = tune(reduction, BETA_MAX[kind], temperatures, seed)
        row = measure(reduction, tuning, seeds + seed)
        gaps.append((exact_I - row.log_z_I).mean().item())
    return Gap(statistics.mean(gaps), statistics.stdev(gaps) / seeds**0.5, float("nan"))


def tune(distortion: Distortion, beta_max: float, temperatures: int, seed: int) -> Tuning:
    return pilot.tune(
        distortion,
        Gaussian(10),
        beta_max=beta_max,
        temperatures=temperatures,
        chains=CHAINS,
        leapfrog=OUR_LEAPFROG,
        seed=seed,
        pilot_temperatures=temperatures // 2,
    )


def pilot_transitions(temperatures: int) -> float:
    """The transitions of both walks of the tuning round."""
    return 2 * (temperatures / 2 - 1)


def measure(distortion: Distortion, tuning: Tuning, seed: int) -> ais.Row:
    run = ais.Walk(distortion, Gaussian(10), tuning, seed, range(IMAGES))
    state = ais.start(run, CHAINS)
    while not ais.done(run, state):
        state, row = ais.advance(run, state)
    return row


def reached(lengths: Sequence[Length]) -> float | None:
    """Temperatures at which the gap is the target: linear in their logarithm between lengths."""
    if lengths[0].gap.mean <= TARGET:
        return lengths[0].temperatures
    for a, b in pairwise(lengths):
        if b.gap.mean <= TARGET:
            share = (a.gap.mean - TARGET) / (a.gap.mean - b.gap.mean)
            return a.temperatures * (b.temperatures / a.temperatures) ** share
    return None


def follow(name: str, lengths: Sequence[int], gap: Callable[[int], Gap]) -> list[Length]:
    """Longer and longer until the gap is there."""
    done: list[Length] = []
    for temperatures in lengths:
        done.append(Length(temperatures, gap(temperatures)))
        mean, error, single = done[-1].gap
        note = "" if np.isnan(single) else f"  (float32 weights: {single:.2f})"
        print(
            f"{name} {temperatures:>7} temperatures: gap {mean:6.3f} ± {error:.3f}{note}",
            flush=True,
        )
        if mean <= TARGET:
            break
    return done


class Costs(NamedTuple):
    """CPU-seconds a transition."""

    plain: float
    pilot: float
    measuring: float


def transition_costs(decoder: nn.Sequential, x_IN: Tensor, rounds: int) -> Costs:
    distortion, temperatures = SquaredError(decoder, x_IN), 40
    problem = ais_plain.by_autograd(decoder, x_IN)
    chains = ais_plain.start(IMAGES, CHAINS, 10, torch.float32)
    eps_IM = torch.full((IMAGES, CHAINS), 0.01)
    tuning = tune(distortion, 10.0, temperatures, seed=6)
    sides = [
        lambda: ais_plain.transition(problem, chains, 0.99, 1.0, eps_IM),
        lambda: tune(distortion, 10.0, temperatures, seed=6),
        lambda: measure(distortion, tuning, seed=7),
    ]
    transitions = (1, pilot_transitions(temperatures), temperatures - 1)
    columns = zip(*alternate(sides, rounds), strict=True)
    return Costs(
        *(statistics.median(column) / n for column, n in zip(columns, transitions, strict=True))
    )


def compare_curves(rounds: int, seeds: int, longest: int) -> None:
    needed: dict[Kind, tuple[float, float, bool]] = {}
    for kind in BETA_MAX:
        print(f"\n{kind} to beta {BETA_MAX[kind]:g}")
        ours = follow("ours ", OUR_LENGTHS[kind], lambda t, kind=kind: our_gap(kind, t, seeds))
        plain = follow(
            "plain",
            [t for t in PLAIN_LENGTHS if t <= longest],
            lambda t, kind=kind: ais_plain.measure_gap(kind, t, repeats=4 if t < 60_000 else 2),
        )
        ours_at, plain_at = reached(ours), reached(plain)
        if ours_at is None:
            raise SystemExit(f"ours does not reach {TARGET} nats with {ours[-1].temperatures}")
        needed[kind] = (ours_at, plain_at or plain[-1].temperatures, plain_at is None)

    weight_NK, bias_N, x_IN = ais_plain.surrogate(10, IMAGES)
    linear = linear_decoder(10)
    linear[0].load_state_dict({"weight": weight_NK, "bias": bias_N})
    for name, decoder in (("linear", linear), ("deep", mlp_decoder(10))):
        costs = transition_costs(decoder.eval().requires_grad_(False), x_IN.float(), rounds)
        print(
            f"\n{name}: CPU-s a transition: plain {costs.plain:.4f}, ours {costs.pilot:.4f} in the "
            f"tuning round, {costs.measuring:.4f} in the measuring round"
        )
        for kind, (ours_at, plain_at, open_end) in needed.items():
            plain_cost = 2 * plain_at * costs.plain
            our_cost = pilot_transitions(ours_at) * costs.pilot + ours_at * costs.measuring
            print(
                f"  {kind} to a gap of {TARGET}: plain 2 × {plain_at:.0f} transitions, "
                f"{plain_cost:.1f} CPU-s; ours {pilot_transitions(ours_at):.0f} + {ours_at:.0f}, "
                f"{our_cost:.2f} CPU-s: {'more than ' if open_end else ''}"
                f"{plain_cost / our_cost:.0f} times cheaper"
            )


def alternate(
    sides: Sequence[Callable[[], object]], rounds: int, repeats: int = 1
) -> list[list[float]]:
    """CPU-seconds of a call of each side, in turns, after one turn to warm up."""
    for side in sides:
        side()
    return [[cpu_seconds(side, repeats) for side in sides] for _ in range(rounds)]


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    started = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - started) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="of every timing")
    parser.add_argument("--seeds", type=int, default=12, help="of our gaps")
    parser.add_argument("--longest", type=int, default=20_000, help="run of the plain side")
    options = parser.parse_args()
    job = environment(threads=1)
    if not job.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **job})
    torch.set_num_threads(1)
    compare_transitions(options.rounds)
    compare_curves(options.rounds, options.seeds, options.longest)


if __name__ == "__main__":
    main()
