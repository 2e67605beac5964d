"""Extreme compression with GANs: a training step against a plain loop, and milliseconds of files.

    python benchmarks/gan_compression.py [--parts steps files published] [--pairs 3] [--steps 24]

- `steps`: the recipe `gan_narrow` from a fresh start, on batches of 4 scenes of 128×128, in turns
  with a plain PyTorch loop over the same networks, each in a process of its own. The plain loop is
  what a researcher writes by hand: encoder, quantizer, decoder, both discriminator losses with
  feature matching, Adam, channels last; `memory` cycles over decoded batches in memory, `plain`
  reads the same stream of shards as gencomp does. Medians of CPU seconds and of the clock after the
  first ten.
- `files`: encoding and decoding a picture of 720×480 with untrained networks of the widths 12, 30
  and 60 on one core, in float64 with all of the container's work, with the parameters and MACs of
  encoder and decoder. The lightest generative codec publishes 58 and 65 ms (28 M and 52 M
  parameters, a server CPU).
- `published`: one step of `gan_cityscapes` at its full width, a picture of 512×1024: seconds, and
  the peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steps import KINDS, QUIET, Times, medians, ours, plain, ratios, spread

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = ((12, 3), (30, 9), (60, 9))  # with their residual blocks


# --- a step ---------------------------------------------------------------------------------------


def plain_step(recipe: Any, batches: Callable[[], Any]) -> Callable[[], None]:
    """A step: the codec's update, and the discriminators' on the images that it has made."""
    import torch
    from torch.nn.functional import mse_loss

    from gencomp.networks.gan_compression import autoencoder as networks
    from gencomp.networks.gan_compression.discriminator import Discriminator

    def adam(net: torch.nn.Module, settings: Any) -> torch.optim.Adam:
        return torch.optim.Adam(net.parameters(), lr=settings.learning_rate, betas=settings.betas)

    def ready(net: torch.nn.Module) -> torch.nn.Module:
        return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    sizes, code, weights = recipe.networks, recipe.code, recipe.loss.weights()
    layers = networks.Layers(sizes.norm, sizes.padding)
    encoder = ready(networks.Encoder(code.channels, sizes.width, layers))
    decoder = ready(networks.Decoder(code.channels, sizes.width, sizes.residual_blocks, layers))
    judge = ready(
        Discriminator(width=recipe.discriminator.width, scales=recipe.discriminator.scales)
    )
    optimizers = [adam(net, recipe.optimizer) for net in (encoder, decoder)]
    judge_optimizer = adam(judge, recipe.discriminator_optimizer)
    centres = torch.arange(code.levels) - (code.levels - 1) / 2

    def quantized(w: torch.Tensor) -> torch.Tensor:
        distances = (w[..., None] - centres).square()
        soft = (torch.softmax(-code.sharpness * distances, -1) * centres).sum(-1)
        return soft + (centres[distances.argmin(-1)] - soft).detach()

    def step() -> None:
        x = batches()
        x_hat = decoder(quantized(encoder(x)))
        judge.requires_grad_(False)
        fake = judge(x_hat)
        with torch.no_grad():
            real = judge(x)
        value = weights.distortion * mse_loss(x_hat, x)
        for one, other in zip(fake, real, strict=True):
            value = value + weights.adversarial * (one.scores - 1).square().mean()
            for a, b in zip(one.features, other.features, strict=True):
                value = value + weights.feature_matching * (a - b).abs().mean()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        value.backward()
        for optimizer in optimizers:
            optimizer.step()
        judge.requires_grad_(True)
        value = torch.zeros(())
        for one in judge(torch.cat([x, x_hat.detach()])):
            real_scores, fake_scores = one.scores.chunk(2)
            value = value + ((real_scores - 1).square().mean() + fake_scores.square().mean()) / 2
        judge_optimizer.zero_grad(set_to_none=True)
        value.backward()
        judge_optimizer.step()

    return step


def child(kind: str, scenes: Path, words: argparse.Namespace) -> None:
    import torch

    from gencomp import recipes

    torch.set_num_threads(1)
    fresh = {"parents.distortion": None, "data.shards": str(scenes), "training.ema_decay": None}
    recipe = recipes.load("gan_narrow", {**QUIET, **fresh, "training.ema_warm_up": False})
    with tempfile.TemporaryDirectory() as work:
        clock = (
            ours(recipe, words.steps, Path(work))
            if kind == "gencomp"
            else plain(recipe, words.steps, kind == "memory", plain_step)
        )
    print(json.dumps(medians(clock)))


def call(*child_words: str, steps: int = 0) -> Any:
    """What a process of its own prints last."""
    from cluster.ray_runtime import WORKER_ENVIRONMENT

    environment = {**os.environ, **WORKER_ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, __file__, "--child", *child_words, "--steps", str(steps)],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(scenes: Path, words: argparse.Namespace) -> None:
    found: dict[str, list[Times]] = {kind: [] for kind in KINDS}
    for pair in range(words.pairs):
        for kind in KINDS if pair % 2 == 0 else KINDS[::-1]:
            found[kind].append(call(kind, str(scenes), steps=words.steps))
    for number, clock in enumerate(("clock", "CPU")):
        seconds = {kind: [times[number] for times in found[kind]] for kind in KINDS}
        told_all = ", ".join(f"{kind} {statistics.median(seconds[kind]):.3f} s" for kind in KINDS)
        told = [
            f"{kind} / gencomp {spread(ratios(seconds[kind], seconds['gencomp']))}"
            for kind in KINDS[:2]
        ]
        print(f"a step by {clock}: {told_all}; {', '.join(told)}", flush=True)


# --- files ----------------------------------------------------------------------------------------


def macs(network: Any, *inputs: Any) -> int:
    """The multiplications of the convolutions of a network."""
    from torch import nn

    found = [0]

    def count(layer: Any, given: Any, made: Any) -> None:
        kernel = layer.weight.shape[2] * layer.weight.shape[3] * layer.in_channels
        pixels = given[0] if isinstance(layer, nn.ConvTranspose2d) else made
        outputs = layer.out_channels * pixels.shape[2] * pixels.shape[3]
        found[0] += kernel * outputs

    hooks = [
        one.register_forward_hook(count)
        for one in network.modules()
        if isinstance(one, nn.Conv2d | nn.ConvTranspose2d)
    ]
    network(*inputs)
    for hook in hooks:
        hook.remove()
    return found[0]


def files_child(width: int, blocks: int) -> None:
    import numpy as np
    import torch

    from gencomp import recipes
    from gencomp.system import Picture
    from gencomp.systems import build_system

    torch.set_num_threads(1)
    recipe = recipes.load(
        "gan_narrow",
        {
            "parents.distortion": None,
            "networks.width": width,
            "networks.residual_blocks": blocks,
        },
    )
    system = build_system(recipe, {})
    system.networks.eval()
    encoder, decoder = (system.networks[name] for name in ("encoder", "decoder"))
    with torch.no_grad():
        x = torch.randn(1, 3, 480, 720)
        work = macs(encoder, x), macs(decoder, encoder(x))
    parameters = [sum(p.numel() for p in net.parameters()) for net in (encoder, decoder)]
    codec = system.codec()
    assert codec is not None
    image = np.random.default_rng(0).integers(0, 256, (480, 720, 3), np.uint8)
    encode, decode = [], []
    for _ in range(4):
        start = time.process_time()
        stream = codec.compress(Picture(image))
        middle = time.process_time()
        codec.decompress(stream)
        encode.append(middle - start)
        decode.append(time.process_time() - middle)
    print(json.dumps([min(encode), min(decode), *parameters, *work]))


def files() -> None:
    for width, blocks in WIDTHS:
        encode, decode, *rest = call("files", str(width), str(blocks))
        of_encoder, of_decoder, down, up = (value / 1e6 for value in rest)
        print(
            f"width {width}, {blocks} blocks: compress {1e3 * encode:.0f} ms (it decodes too, for"
            f" its digest), decompress {1e3 * decode:.0f} ms; parameters {of_encoder:.2f} M and"
            f" {of_decoder:.1f} M; {down / 1e3:.1f} and {up / 1e3:.1f} GMAC",
            flush=True,
        )


# --- the published size ---------------------------------------------------------------------------


def published_child() -> None:
    import numpy as np
    import torch

    from gencomp import recipes
    from gencomp.draws import Draws
    from gencomp.system import Batch, Progress
    from gencomp.systems import build_system

    torch.set_num_threads(1)
    recipe = recipes.load("gan_cityscapes", {"parents.distortion": None})
    system = build_system(recipe, {})
    index = torch.zeros(1, dtype=torch.int64)
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 512, 1024), np.uint8)
    batch = Batch(torch.from_numpy(image), index, index, index)
    seconds = []
    optimizers = {
        name: torch.optim.Adam(phase.trained_parameters(), lr=1e-4)
        for name, phase in system.phases.items()
    }
    progress = Progress(0, 0, 1)
    for update in system.updates(progress):
        start = time.process_time()
        phase = system.phases[update.phase]
        phase.take_over()
        phase(batch, Draws(1, ("train", 0, 0), 1), progress).loss.backward()
        optimizers[update.phase].step()
        optimizers[update.phase].zero_grad(set_to_none=True)
        seconds.append(time.process_time() - start)
    parameters = sum(p.numel() for p in system.networks.parameters())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps([seconds, parameters, peak]))


def published() -> None:
    seconds, parameters, peak = call("published")
    told = " and ".join(f"{one:.0f}" for one in seconds)
    print(
        f"gan_cityscapes, {parameters / 1e6:.1f} M parameters, one picture of 512×1024: {told}"
        " CPU-seconds for the updates of codec and discriminators; peak memory"
        f" {peak / 2**30:.1f} GiB with both of Adam's moments",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=["steps", "files", "published"])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.child is not None:
        kind, *more = words.child
        if kind == "files":
            files_child(*map(int, more))
        elif kind == "published":
            published_child()
        else:
            child(kind, Path(more[0]), words)
        return
    print(f"load {os.getloadavg()[0]:.1f}")
    if "steps" in words.parts:
        from shards.building.build import build

        with tempfile.TemporaryDirectory() as directory:
            build("shapes", Path(directory) / "shapes")
            compare(Path(directory) / "shapes", words)
    if "files" in words.parts:
        files()
    if "published" in words.parts:
        published()
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
