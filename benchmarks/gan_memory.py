"""The memory of a training step of compression with GANs, counted on tensors without memory.

    python benchmarks/gan_memory.py

It prints the table of docs/scaling.md. The step of a published recipe is traced with fake tensors,
so that networks of 169 million parameters take seconds and no memory. What the backward pass keeps
of the forward pass is every tensor that autograd saves, each storage once, parameters and buffers
left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.scaling import table
from gencomp import recipes
from gencomp.draws import Draws
from gencomp.system import Batch, Progress, System
from gencomp.systems import build_system

HEIGHT, WIDTH = 512, 1024


@dataclass(frozen=True)
class Memory:
    """Bytes of a training step in float32 weights, by what takes them.

    Attributes:
        state: the weights, their moving averages if the recipe has them, and Adam's two moments.
        gradients: the gradients of an update, by its phase.
        copies: the copies of weights in bfloat16 that its backward pass keeps, by its phase.
        kept: what its backward pass keeps of one picture, by its phase.
    """

    state: int
    gradients: Mapping[str, int]
    copies: Mapping[str, int]
    kept: Mapping[str, int]

    def peak(self, pictures: int = 1) -> int:
        """The most that a step holds at once, without workspaces of the kernels."""
        return self.state + max(
            self.gradients[phase] + self.copies[phase] + pictures * kept
            for phase, kept in self.kept.items()
        )

    def pictures(self, limit: float) -> int:
        """The largest batch whose step takes at most `limit` bytes."""
        return min(
            int((limit - self.state - self.gradients[phase] - self.copies[phase]) // kept)
            for phase, kept in self.kept.items()
        )


def of(name: str, overrides: Mapping[str, Any], precision: str = "float32") -> Memory:
    """The memory of a step of a recipe on pictures of 512×1024.

    Args:
        name: a published recipe of the adversarial stage.
        overrides: recipe keys and their values.
        precision: float32, or bfloat16 for autocast's choice of types on a CPU.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        recipe = recipes.load(name, {"parents.distortion": None, **overrides})
        system = build_system(recipe, {})
        weights = _bytes(system.networks)
        averages = weights if recipe.training.ema_decay is not None else 0
        trained = {
            phase: sum(4 * p.numel() for p in module.trained_parameters())
            for phase, module in system.phases.items()
        }
        one, two = (
            {name: kept(system, name, pictures, precision) for name in system.phases}
            for pictures in (1, 2)
        )
    return Memory(
        state=weights + averages + 2 * sum(trained.values()),
        gradients=trained,
        copies={name: 2 * one[name] - two[name] for name in one},
        kept={name: two[name] - one[name] for name in one},
    )


def kept(system: System, phase_name: str, pictures: int, precision: str) -> int:
    """The bytes that autograd saves in the forward pass of an update."""
    own = {p.untyped_storage()._cdata for p in system.networks.state_dict(keep_vars=True).values()}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            found[storage] = tensor  # kept alive, so that no other storage gets its number
        return tensor

    phase = system.phases[phase_name]
    phase.take_over()
    draws = Draws(1, ("train", 0, 0), pictures)
    wanted = precision == "bfloat16"
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=wanted),
    ):
        result = phase(_pictures(pictures), draws, Progress(0, 0, 1))
    del result
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


def _pictures(count: int) -> Batch:
    index = torch.zeros(count, dtype=torch.int64)
    ids_BHW = torch.zeros(count, HEIGHT, WIDTH, dtype=torch.int64)
    image_BCHW = torch.zeros(count, 3, HEIGHT, WIDTH, dtype=torch.uint8)
    return Batch(image_BCHW, index, index, index, {"label": ids_BHW, "instance": ids_BHW})


def _bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


CASES = (
    ("global", "gan_cityscapes", "float32", False),
    ("global", "gan_cityscapes", "float32", True),
    ("global", "gan_cityscapes", "bfloat16", False),
    ("global", "gan_cityscapes", "bfloat16", True),
    ("conditional", "gan_conditional_cityscapes", "float32", False),
    ("conditional", "gan_conditional_cityscapes", "bfloat16", True),
)


def rows() -> list[list[str]]:
    """A line for each case: what takes memory, and how many pictures a GPU of 80 GB holds."""
    found = []
    for mode, name, precision, recompute in CASES:
        memory = of(name, {"networks.recompute_blocks": recompute}, precision)
        found.append(
            [
                f"{mode}, {precision}" + ", blocks recomputed" * recompute,
                f"{memory.state / 1e9:.2f}",
                f"{max(memory.gradients.values()) / 1e9:.2f}",
                f"{memory.copies['codec'] / 1e9:.2f}",
                *(f"{memory.kept[phase] / 1e9:.2f}" for phase in ("codec", "discriminator")),
                f"{memory.peak() / 1e9:.2f}",
                f"{memory.pictures(80e9)}",
            ]
        )
    return found


HEAD = ["512×1024", "weights, averages, moments", "gradients", "weights in bfloat16",
        "kept of a picture, codec", "discriminators", "a step of one picture",
        "pictures in 80 GB"]  # fmt: skip


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(table(HEAD, rows()))


if __name__ == "__main__":
    main()
