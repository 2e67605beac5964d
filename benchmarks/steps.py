"""A training step of gencomp against a plain PyTorch loop over the same networks, and 2 workers
against 1.

    python benchmarks/steps.py [--pairs 5] [--steps 40] [--threads 1]

The loops train the `photos` recipes of the three generators in one process, in turns, each in a
process of its own. The plain loop is what a researcher writes by hand: modules, losses, Adam,
channels last; `memory` cycles over decoded batches that lie in memory, `plain` reads the same
stream of shards as gencomp does.
Times are medians over the steps after the first ten. Scaling: the WAE recipe with 2 workers over
gloo against 1, images per second, at the narrow and at the published width.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("wae", "wgan_gp", "wasserstein_pp")
WARM = 10


# --- the plain loops ------------------------------------------------------------------------------


def plain_step(recipe: Any, batches: Callable[[], Any]) -> Callable[[], None]:
    """One step of a method: what it takes from `batches`, and how its optimisers move."""
    import torch

    from gencomp.losses import gradient_penalty, mmd, rmse
    from gencomp.networks.dplc import Critic, Encoder, Generator

    def adam(settings: Any, *nets: torch.nn.Module) -> torch.optim.Adam:
        parameters = [p for net in nets for p in net.parameters()]
        return torch.optim.Adam(parameters, lr=settings.learning_rate, betas=settings.betas)

    def prior(count: int) -> torch.Tensor:
        return torch.randn(count, recipe.networks.latent_dim, 1, 1)

    def ready(net: torch.nn.Module) -> torch.nn.Module:
        return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    width, latent_dim = recipe.networks.width, recipe.networks.latent_dim
    generator = ready(Generator(width, latent_dim))
    loss = recipe.loss
    if recipe.stage == "wae":
        encoder = ready(Encoder(width, latent_dim))
        optimizer = adam(recipe.optimizer, encoder, generator)

        def wae() -> None:
            x = batches()
            z = encoder(x)
            value = rmse(generator(z), x) + loss.mmd_weight * mmd(z, prior(len(x)))
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()

        return wae

    critic = ready(Critic(width))
    critic_optimizer = adam(recipe.critic.optimizer, critic)

    def critic_update(x: torch.Tensor, latents: Callable[[torch.Tensor], torch.Tensor]) -> None:
        with torch.no_grad():
            fakes = generator(latents(x))
        settings = recipe.critic
        penalty = gradient_penalty(critic, x, fakes, torch.rand(len(x)), settings.penalty_norm)
        value = critic(fakes).mean() - critic(x).mean() + settings.penalty_weight * penalty
        critic_optimizer.zero_grad(set_to_none=True)
        value.backward()
        critic_optimizer.step()

    if recipe.stage == "wgan_gp":
        optimizer = adam(recipe.optimizer, generator)

        def wgan_gp() -> None:
            for _ in range(recipe.critic.steps):
                x = batches()
                critic_update(x, lambda x: prior(len(x)))
            critic.requires_grad_(False)
            value = -loss.adversarial_weight * critic(generator(prior(len(x)))).mean()
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            critic.requires_grad_(True)

        return wgan_gp

    encoder = ready(Encoder(width, latent_dim))
    optimizer = adam(recipe.optimizer, encoder, generator)

    def interpolated(x: torch.Tensor) -> torch.Tensor:
        share = torch.rand(len(x), 1, 1, 1)
        return share * encoder(x) + (1 - share) * prior(len(x))

    def wasserstein_pp() -> None:
        for _ in range(recipe.critic.steps):
            x = batches()
            critic_update(x, interpolated)
        critic.requires_grad_(False)
        z = encoder(x)
        value = rmse(generator(z), x) + loss.mmd_weight * mmd(z, prior(len(x)))
        value = value - loss.adversarial_weight * critic(generator(z.detach())).mean()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        critic.requires_grad_(True)

    return wasserstein_pp


def plain(recipe: Any, steps: int, in_memory: bool) -> list[float]:
    import itertools

    import torch

    from cluster import data
    from gencomp.systems.dplc.parts import to_signed

    images, order = data.open_training(recipe)
    stream = data.training_stream(recipe, images, order, 0, 1, 0)
    cpu = torch.device("cpu")
    read = (data.to_batch(host, cpu).images_BCHW for host in stream)
    turns = itertools.cycle([next(read) for _ in range(20)]) if in_memory else read
    step = plain_step(recipe, lambda: to_signed(next(turns)))
    clock = []
    for _ in range(steps):
        step()
        clock.append(time.perf_counter())
    stream.close()
    return clock


# --- gencomp --------------------------------------------------------------------------------------


def ours(recipe: Any, steps: int, work: Path) -> list[float]:
    from cluster.runs import enter
    from cluster.seat import Seat
    from cluster.worker import Host, train

    clock: list[float] = []

    def stop() -> bool:
        clock.append(time.perf_counter())
        return len(clock) > steps

    train(enter(work / "run", recipe), Seat(), Host(should_stop=stop))
    return clock


# --------------------------------------------------------------------------------------------------


def load(method: str, photos: Path) -> Any:
    from gencomp import recipes

    quiet = {
        "data.shards": str(photos),
        "training.epochs": None,
        "training.steps": 10**6,
        "training.log_every": 10**6,
        "training.checkpoint_every": 10**6,
        "training.sample_every": 10**6,
        "evaluation.every": 10**6,
    }
    return recipes.load(f"dplc_{method}_photos", quiet)


def child(kind: str, method: str, photos: Path, steps: int, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    recipe = load(method, photos)
    with tempfile.TemporaryDirectory() as work:
        clock = (
            ours(recipe, steps, Path(work))
            if kind == "gencomp"
            else plain(recipe, steps, kind == "memory")
        )
    seconds = [b - a for a, b in zip(clock[WARM:], clock[WARM + 1 :], strict=False)]
    print(json.dumps(statistics.median(seconds)))


def call(kind: str, method: str, photos: Path, words: argparse.Namespace) -> float:
    from cluster.runtime import WORKER_ENVIRONMENT

    environment = {**os.environ, **WORKER_ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    environment |= {"OMP_NUM_THREADS": str(words.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, __file__, "--child", kind, method, str(photos), "--steps",
         str(words.steps), "--threads", str(words.threads)],
        env=environment, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return float(json.loads(done.stdout.splitlines()[-1]))


def scaling(photos: Path, pairs: int, width: int, steps: int) -> None:
    from training import throughput_torchrun

    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as work:
        for pair in range(pairs):
            for workers in (1, 2) if pair % 2 == 0 else (2, 1):
                name = f"{workers}-{pair}"
                wide = [f"--networks.width={width}"]
                rate = throughput_torchrun(Path(work), photos, steps, workers, name, wide)
                rates[workers].append(rate)
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    medians = [f"{statistics.median(rates[workers]):.1f}" for workers in (2, 1)]
    print(
        f"\nwidth {width}: 2 workers against 1, images/s: {' against '.join(medians)}, "
        f"ratio {spread(ratios)}",
        flush=True,
    )


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.child is not None:
        kind, method, photos = words.child
        child(kind, method, Path(photos), words.steps, words.threads)
        return
    from shards.build import build

    with tempfile.TemporaryDirectory() as directory:
        photos = Path(directory) / "photos"
        build("photos", photos)
        kinds = ["memory", "plain", "gencomp"]
        print(f"{'method':<16}" + "".join(f"{kind + ', s':>13}" for kind in kinds) + "   ratios")
        for method in METHODS:
            found: dict[str, list[float]] = {kind: [] for kind in kinds}
            for pair in range(words.pairs):
                for kind in kinds if pair % 2 == 0 else kinds[::-1]:
                    found[kind].append(call(kind, method, photos, words))
            ratios = {
                kind: spread([a / b for a, b in zip(found[kind], found["gencomp"], strict=True)])
                for kind in kinds[:2]
            }
            medians = "".join(f"{statistics.median(found[kind]):>13.4f}" for kind in kinds)
            told = ", ".join(f"{kind} / gencomp {ratio}" for kind, ratio in ratios.items())
            print(f"{method:<16}{medians}   {told}", flush=True)
        scaling(photos, words.pairs, width=16, steps=120)
        scaling(photos, words.pairs, width=64, steps=30)


if __name__ == "__main__":
    main()
