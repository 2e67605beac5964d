"""A training step of universal codecs against a plain PyTorch loop over the same networks.

    python benchmarks/urdp.py [--pairs 3] [--steps 50] [--threads 1] [--images mnist svhn]

The loops train the recipes `urdp_mnist` (3 latents of 3 levels, 28×28 grey) and `urdp_svhn` (10 of
8, 32×32 colour), in turns, each in a process of its own; letters and photographs of the same sizes
stand for the published images. The plain loop is what a researcher writes by hand: modules, losses,
three optimizers of Adam, channels last, random numbers of torch; `memory` cycles over decoded
batches that lie in memory, as the figures of the original do, `plain` reads the same stream of
shards as gencomp does. Times are of a batch for the critic and one for the decoder together,
medians after the first ten.

The original reached 281 to 285 images per CPU-second (MNIST) and 102 to 106 (SVHN) on another day.
What a core did meanwhile stands beside each figure: the speed of a matrix product and of a
convolution in float32.
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
from pathlib import Path
from typing import Any, NamedTuple

from steps import KINDS, QUIET, Times, now, ours, ratios, spread

ROOT = Path(__file__).resolve().parents[1]
WARM = 10  # steps, an even number
ORIGINAL = {"mnist": "281 to 285", "svhn": "102 to 106"}
SETS = {"mnist": ("glyphs", {}), "svhn": ("photos", {"size": "32"})}


class Found(NamedTuple):
    """Medians of one process.

    Attributes:
        wall, cpu: seconds of a batch for the critic and one for the decoder together.
        product, convolution: the speed of the core, GFLOP/s.
    """

    wall: float
    cpu: float
    product: float
    convolution: float


# --- the plain loop -------------------------------------------------------------------------------


def plain_step(recipe: Any, batches: Callable[[], Any]) -> Callable[[], None]:
    """A step of stage `end_to_end`: batches go to the critic and to encoder and decoder in turn."""
    import torch
    from torch.nn.functional import mse_loss

    from gencomp.networks import urdp as networks

    def adam(settings: Any, net: torch.nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam(net.parameters(), lr=settings.learning_rate, betas=settings.betas)

    def ready(net: torch.nn.Module) -> torch.nn.Module:
        return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    sizes, code, settings = recipe.networks, recipe.code, recipe.critic
    side, channels = sizes.image_size, sizes.channels
    encoder = ready(networks.encoder(side, channels, code.latents))
    decoder = ready(networks.decoder(side, channels, code.latents))
    critic = ready(networks.critic(side, channels))
    optimizers = [adam(recipe.optimizer, net) for net in (encoder, decoder)]
    critic_optimizer = adam(settings.optimizer, critic)
    centres = torch.linspace(-1, 1, code.levels)
    cell = 2 / (code.levels - 1)

    def shown(x: torch.Tensor) -> torch.Tensor:
        u = (torch.rand(len(x), code.latents) - 0.5) * cell
        v = (encoder(x) + u)[..., None]
        distances = (v - centres).abs()
        soft = (torch.softmax(-code.sharpness * distances, -1) * centres).sum(-1)
        hard = centres[distances.argmin(-1)]
        return decoder(soft + (hard - soft).detach() - u)  # type: ignore[no-any-return]

    def penalty(x: torch.Tensor, fakes: torch.Tensor) -> torch.Tensor:
        mix = torch.rand(len(x), 1, 1, 1)
        between = (mix * x + (1 - mix) * fakes).requires_grad_()
        (slopes,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        return (slopes.flatten(1).norm(dim=1) - 1).square().mean()

    def critic_step(x: torch.Tensor) -> None:
        with torch.no_grad():
            fakes = shown(x)
        gap = critic(fakes).mean() - critic(x).mean()
        value = gap + settings.penalty_weight * penalty(x, fakes)
        critic_optimizer.zero_grad(set_to_none=True)
        value.backward()
        critic_optimizer.step()

    def decoder_step(x: torch.Tensor) -> None:
        critic.requires_grad_(False)
        fakes = shown(x)
        value = mse_loss(fakes, x) - recipe.loss.perception_weight * critic(fakes).mean()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        value.backward()
        for optimizer in optimizers:
            optimizer.step()
        critic.requires_grad_(True)

    turns = itertools.cycle([critic_step, decoder_step])
    return lambda: next(turns)(batches())


def plain(recipe: Any, steps: int, in_memory: bool) -> list[Times]:
    import torch

    from cluster import data

    images, order = data.open_training(recipe)
    stream = data.training_stream(recipe, images, order, 0, 1, 0)
    channels = recipe.networks.channels

    def unit(host: Any) -> torch.Tensor:
        images_BCHW = data.to_batch(host, torch.device("cpu")).images_BCHW
        return images_BCHW[:, :channels].float() / 255

    read = (unit(host) for host in stream)
    turns = itertools.cycle([next(read) for _ in range(20)]) if in_memory else read
    step = plain_step(recipe, lambda: next(turns))
    clock = []
    for _ in range(steps):
        step()
        clock.append(now())
    stream.close()
    return clock


# --------------------------------------------------------------------------------------------------


def core_speed() -> tuple[float, float]:
    """The GFLOP/s of a matrix product and of the critic's second convolution, medians of 7."""
    import torch

    a, b = torch.randn(2, 1024, 1024)
    x_BCHW = torch.randn(64, 64, 14, 14).to(memory_format=torch.channels_last)
    convolution = torch.nn.Conv2d(64, 128, 5, 2, 2).to(memory_format=torch.channels_last)

    def speed(work: Callable[[], Any], operations: float) -> float:
        found = []
        with torch.no_grad():
            for _ in range(8):
                start = time.process_time()
                work()
                found.append(operations / (time.process_time() - start) / 1e9)
        return statistics.median(found[1:])

    return (
        speed(lambda: a @ b, 2 * 1024**3),
        speed(lambda: convolution(x_BCHW), 2 * 64 * 128 * 64 * 25 * 49),
    )


def load(images: str, folder: Path) -> Any:
    from gencomp import recipes

    return recipes.load(f"urdp_{images}", {**QUIET, "data.shards": str(folder / images)})


def child(kind: str, images: str, folder: Path, words: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(words.threads)
    recipe = load(images, folder)
    speeds = core_speed()
    with tempfile.TemporaryDirectory() as work:
        clock = (
            ours(recipe, words.steps, Path(work))
            if kind == "gencomp"
            else plain(recipe, words.steps, kind == "memory")
        )
    both = clock[WARM::2]
    medians = [
        statistics.median(b - a for a, b in itertools.pairwise(times))
        for times in zip(*both, strict=True)
    ]
    print(json.dumps([*medians, *speeds]))


def call(kind: str, images: str, folder: Path, words: argparse.Namespace) -> Found:
    from cluster.ray_runtime import WORKER_ENVIRONMENT

    environment = {**os.environ, **WORKER_ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    environment |= {"OMP_NUM_THREADS": str(words.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, __file__, "--child", kind, images, str(folder), "--steps",
         str(words.steps), "--threads", str(words.threads)],
        env=environment, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return Found(*json.loads(done.stdout.splitlines()[-1]))


def compare(images: str, folder: Path, words: argparse.Namespace) -> None:
    from steps import BATCH

    found: dict[str, list[Found]] = {kind: [] for kind in KINDS}
    for pair in range(words.pairs):
        for kind in KINDS if pair % 2 == 0 else KINDS[::-1]:
            found[kind].append(call(kind, images, folder, words))
    print(f"\n{images}; the original: {ORIGINAL[images]} images per CPU-second on another day")
    for kind in KINDS:
        rates = [2 * BATCH / one.cpu for one in found[kind]]
        wall = statistics.median(2 * BATCH / one.wall for one in found[kind])
        told = ", ".join(
            f"{name} {spread([getattr(one, name) for one in found[kind]])}"
            for name in ("product", "convolution")
        )
        print(f"  {kind:<8} images per CPU-second {spread(rates)}, a second {wall:.0f}; {told}")
    for number, clock in enumerate(("clock", "CPU")):
        seconds = {kind: [one[number] for one in found[kind]] for kind in KINDS}
        for kind in KINDS[:2]:
            told = spread(ratios(seconds[kind], seconds["gencomp"]))
            print(f"  {clock:<6}{kind} / gencomp {told}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.child is not None:
        kind, images, folder = words.child
        child(kind, images, Path(folder), words)
        return
    from shards.building.build import build

    print(f"load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        for images in words.images:
            source, options = SETS[images]
            build(source, folder / images, options=options)
            compare(images, folder, words)
    print(f"\nload {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
