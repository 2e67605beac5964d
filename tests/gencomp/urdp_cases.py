"""Small systems of urdp and their batches, as several test files use them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gencomp import recipes
from gencomp.draws import Draws
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Batch, Progress
from gencomp.systems import build_system
from gencomp.systems.urdp.system import UrdpSystem

START = Progress(step=0, samples=0, epoch_length=640)
NARROW = {"networks.width": 0.0625, "networks.decoder_width": 0.0625}
RECIPES = {
    "end_to_end": "urdp_mnist",
    "universal": "urdp_universal_mnist",
    "refinement": "urdp_refinement_mnist",
    "critic": "urdp_critic_mnist",
}


def recipe(stage: str = "end_to_end", **overrides: Any) -> BaseRecipe:
    narrow = NARROW if stage == "end_to_end" else {}
    return recipes.load(RECIPES[stage], narrow | overrides)


def made(
    stage: str = "end_to_end", parent: BaseRecipe | None = None, **overrides: Any
) -> UrdpSystem:
    """A system with the weights of its start, on a fresh end-to-end system for later stages.

    Args:
        stage: the stage.
        parent: the recipe of the end-to-end system; for that stage itself it is what is made.
        overrides: recipe keys of the stage.
    """
    base = parent or recipe()
    torch.manual_seed(0)
    if stage == "end_to_end":
        found = build_system(parent or recipe(stage, **overrides), {})
    else:
        role = "decoder" if stage == "critic" else "encoder"
        found = build_system(recipe(stage, **overrides), {role: base})
        found.load_frozen({role: parent_state(base)})
        found.frozen.eval().requires_grad_(False)
    assert isinstance(found, UrdpSystem)
    return found


def parent_state(parent: BaseRecipe | None = None) -> dict[str, Tensor]:
    """The networks of an end-to-end run."""
    torch.manual_seed(1)
    return build_system(parent or recipe(), {}).networks.state_dict()


def batch(system: UrdpSystem, n: int = 6, seed: int = 0) -> Batch:
    """Noise in the format of a system."""
    pixels = system.pixels
    shape = (n, pixels.channels, pixels.height, pixels.width)
    images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    index = torch.arange(n)
    images_BCHW = torch.from_numpy(images).expand(-1, 3, -1, -1)
    return Batch(images_BCHW, index, index, -torch.ones(n, dtype=torch.int64))


def draws(step: int = 0, n: int = 6) -> Draws:
    return Draws(1, ("train", step, 0), n)


def supply(system: UrdpSystem, n: int = 256) -> Iterator[tuple[Batch, Draws]]:
    for step in range(1000):
        yield batch(system, n, seed=step), draws(step, n)


def update(system: UrdpSystem, phase: str, step: int = 0, n: int = 6) -> dict[str, float]:
    """One optimizer step of a phase with a fresh optimizer, and its terms."""
    optimizer = system.optimizer(phase)
    one = system.phases[phase]
    one.take_over()
    found = one(batch(system, n, seed=step), draws(step, n), START)
    found.loss.backward()
    optimizer.step()
    return {"loss": float(found.loss.detach()), **{k: float(v) for k, v in found.terms.items()}}
