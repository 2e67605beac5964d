"""Small systems of irec and their batches, as several test files use them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gencomp import recipes
from gencomp.draws import Draws
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Batch, Progress
from gencomp.systems.irec.build import build
from gencomp.systems.irec.recipe import IrecRecipe
from gencomp.systems.irec.system import IrecSystem
from shards.building.build import build as build_shards

START = Progress(step=0, samples=0, epoch_length=640)
RECIPES = {
    "rvae": "irec_rvae_narrow_cifar10",
    "two_level": "irec_two_level_photos",
    "one_level": "irec_one_level_photos",
}
NARROW: dict[str, dict[str, Any]] = {
    "rvae": {"networks.blocks": 3, "networks.deterministic": 6, "networks.stochastic": 2},
    "two_level": {"networks.filters": 4, "networks.hyper_filters": 3},
    "one_level": {"networks.filters": 4},
}
STAGES = tuple(RECIPES)


def recipe(stage: str = "rvae", **overrides: Any) -> BaseRecipe:
    return recipes.load(RECIPES[stage], NARROW[stage] | overrides)


def made(stage: str = "rvae", start: bool = True, **overrides: Any) -> IrecSystem:
    """A system with the weights of its start.

    Args:
        stage: the stage.
        start: whether the start that depends on the data is made.
        overrides: recipe keys.
    """
    torch.manual_seed(0)
    found = recipe(stage, **overrides)
    assert isinstance(found, IrecRecipe)
    system = build(found)
    if start:
        system.initialise({}, supply())
    return system


def images(n: int = 4, height: int = 32, width: int = 32, seed: int = 0) -> torch.Tensor:
    """Smooth colours with a little noise, uint8 [n, 3, height, width]."""
    numbers = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    phase, pace = numbers.uniform(0, 6, (2, n, 3, 1, 1))
    waves = np.sin((x + pace * y) / (4 + pace) + phase)
    noisy = 128 + 90 * waves + numbers.normal(0, 8, waves.shape)
    return torch.from_numpy(noisy.round().clip(0, 255).astype(np.uint8))


def batch(n: int = 4, height: int = 32, width: int = 32, seed: int = 0) -> Batch:
    index = torch.arange(n)
    return Batch(images(n, height, width, seed), index, index, -torch.ones(n, dtype=torch.int64))


def draws(step: int = 0, n: int = 4) -> Draws:
    return Draws(1, ("train", step, 0), n)


def supply(n: int = 16, size: int = 32) -> Iterator[tuple[Batch, Draws]]:
    for step in range(1000):
        yield batch(n, size, size, seed=step), draws(step, n)


def shard_set(folder: Path, side: int = 32, train: int = 48, test: int = 12) -> Path:
    """A shard set of smooth images."""
    source = folder / "images"
    for split, count, seed in (("train", train, 0), ("test", test, 1)):
        (source / split).mkdir(parents=True)
        pixels = images(count, side, side, seed).permute(0, 2, 3, 1).numpy()
        for number, image_HWC in enumerate(pixels):
            Image.fromarray(image_HWC).save(source / split / f"{number:03d}.png")
    build_shards("folder", folder / "shards", path=source, shard_size=64, processes=1)
    return folder / "shards"
