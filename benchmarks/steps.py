"""A training step of gencomp against a plain PyTorch loop over the same networks, and 2 workers
against 1.

    python benchmarks/steps.py [--pairs 5] [--steps 40] [--threads 1] [--parts steps scaling]

The loops train the `photos` recipes of the three generators in one process, in turns, each in a
process of its own. The plain loop is what a researcher writes by hand: modules, losses, Adam,
channels last; `memory` cycles over decoded batches that lie in memory, `plain` reads the same
stream of shards as gencomp does. Times are medians over the steps after the first ten, on the clock
and of the CPU; the latter, with all threads, says more on a machine that others use too.

Scaling: images per second of the WAE recipe with 2 workers over gloo, at the narrow and at the
published width, with the recipe's global batch and with twice as much, against one worker alone.
`apart` are two runs of one worker side by side: what the machine gives 2 workers that never wait
for each other.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("wae", "wgan_gp", "wasserstein_pp")
KINDS = ("memory", "plain", "gencomp")
WARM = 10
BATCH = 64

Times = tuple[float, float]  # on the clock, of the CPU
MakeStep = Callable[[Any, Callable[[], Any]], Callable[[], None]]
# The keys of a recipe that is trained for its speed alone.
QUIET = {
    "training.epochs": None,
    "training.steps": 10**6,
    "training.log_every": 10**6,
    "training.checkpoint_every": 10**6,
    "training.sample_every": 10**6,
    "evaluation.every": 10**6,
}


# --- the plain loops ------------------------------------------------------------------------------


def plain_step(recipe: Any, batches: Callable[[], Any]) -> Callable[[], None]:
    """One step of a method: what it takes from `batches`, and how its optimizers move."""
    import torch

    from gencomp.losses import gradient_penalties, mmd, rmse
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
        mix_B = torch.rand(len(x))
        penalty = gradient_penalties(critic, x, fakes, mix_B, settings.penalty_norm).mean()
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


def plain(
    recipe: Any, steps: int, in_memory: bool, make_step: MakeStep = plain_step
) -> list[Times]:
    """The times after each step of a plain loop on images of [−1, 1]."""
    import torch

    from cluster import data
    from gencomp.systems.common.pixels import to_signed

    images, order = data.open_training(recipe)
    stream = data.training_stream(recipe, images, order, 0, 1, 0)
    cpu = torch.device("cpu")
    read = (data.to_batch(host, cpu).images_BCHW for host in stream)
    turns = itertools.cycle([next(read) for _ in range(20)]) if in_memory else read
    step = make_step(recipe, lambda: to_signed(next(turns)))
    clock = []
    for _ in range(steps):
        step()
        clock.append(now())
    stream.close()
    return clock


# --- gencomp --------------------------------------------------------------------------------------


def ours(recipe: Any, steps: int, work: Path) -> list[Times]:
    from cluster.run_entry import enter
    from cluster.training.worker_info import WorkerInfo
    from cluster.worker import Host, train

    clock: list[Times] = []

    def stop() -> bool:
        clock.append(now())
        return len(clock) > steps

    train(enter(work / "run", recipe), WorkerInfo(), Host(should_stop=stop))
    return clock


# --------------------------------------------------------------------------------------------------


def load(method: str, photos: Path) -> Any:
    from gencomp import recipes

    return recipes.load(f"dplc_{method}_photos", {**QUIET, "data.shards": str(photos)})


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
    print(json.dumps(medians(clock)))


def medians(clock: list[Times]) -> list[float]:
    """The median of a step by each clock, after the first ones."""
    return [
        statistics.median(b - a for a, b in itertools.pairwise(times))
        for times in zip(*clock[WARM:], strict=True)
    ]


def now() -> Times:
    return time.perf_counter(), time.process_time()


def call(kind: str, method: str, photos: Path, words: argparse.Namespace) -> Times:
    from cluster.ray_runtime import WORKER_ENVIRONMENT

    environment = {**os.environ, **WORKER_ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    environment |= {"OMP_NUM_THREADS": str(words.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, __file__, "--child", kind, method, str(photos), "--steps",
         str(words.steps), "--threads", str(words.threads)],
        env=environment, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    wall, cpu = json.loads(done.stdout.splitlines()[-1])
    return wall, cpu


def compare(method: str, photos: Path, words: argparse.Namespace) -> None:
    found: dict[str, list[Times]] = {kind: [] for kind in KINDS}
    for pair in range(words.pairs):
        for kind in KINDS if pair % 2 == 0 else KINDS[::-1]:
            found[kind].append(call(kind, method, photos, words))
    for number, clock in enumerate(("wall", "CPU")):
        seconds = {kind: [times[number] for times in found[kind]] for kind in KINDS}
        medians = "".join(f"{statistics.median(seconds[kind]):>13.4f}" for kind in KINDS)
        told = [
            f"{kind} / gencomp {spread(ratios(seconds[kind], seconds['gencomp']))}"
            for kind in KINDS[:2]
        ]
        print(f"{method:<16}{clock:<5}{medians}   {', '.join(told)}", flush=True)


def scaling(photos: Path, pairs: int, width: int, steps: int, batch: int) -> None:
    """One worker trains with the recipe's batch, 2 together with `batch`."""
    from training import throughput_torchrun

    with tempfile.TemporaryDirectory() as work:

        def rate(workers: int, batch: int, name: str) -> float:
            more = [f"--networks.width={width}"]
            folder = Path(work) / name
            folder.mkdir()
            return throughput_torchrun(folder, photos, steps, workers, "run", more, batch)

        def apart(name: str) -> float:
            with ThreadPoolExecutor(2) as pool:
                rates = pool.map(lambda i: rate(1, BATCH, f"{name}-{i}"), range(2))
                return sum(rates)

        kinds: dict[str, Callable[[str], float]] = {
            "one": lambda name: rate(1, BATCH, name),
            "two": lambda name: rate(2, batch, name),
            "apart": apart,
        }
        found: dict[str, list[float]] = {kind: [] for kind in kinds}
        for pair in range(pairs):
            for kind in list(kinds)[:: 1 if pair % 2 == 0 else -1]:
                found[kind].append(kinds[kind](f"{kind}-{pair}"))
    medians = ", ".join(f"{kind} {statistics.median(found[kind]):.1f}" for kind in kinds)
    print(
        f"width {width}, 2 workers with a global batch of {batch}: images/s {medians};"
        f" two / one {spread(ratios(found['two'], found['one']))},"
        f" two / apart {spread(ratios(found['two'], found['apart']))}",
        flush=True,
    )


def ratios(values: list[float], others: list[float]) -> list[float]:
    return [a / b for a, b in zip(values, others, strict=True)]


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", nargs="+", default=["steps", "scaling"])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.child is not None:
        kind, method, photos = words.child
        child(kind, method, Path(photos), words.steps, words.threads)
        return
    from shards.building.build import build

    with tempfile.TemporaryDirectory() as directory:
        photos = Path(directory) / "photos"
        build("photos", photos)
        if "steps" in words.parts:
            print(f"{'method':<16}{'s':<5}" + "".join(f"{kind:>13}" for kind in KINDS))
            for method in METHODS:
                compare(method, photos, words)
        if "scaling" in words.parts:
            for width, steps in ((16, 120), (64, 30)):
                for batch in (BATCH, 2 * BATCH):
                    scaling(photos, words.pairs, width, steps, batch)


if __name__ == "__main__":
    main()
