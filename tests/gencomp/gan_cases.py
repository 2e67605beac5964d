"""Small systems of generative compression, their batches, and images with label maps."""

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
from gencomp.system import Batch, Picture, Progress
from gencomp.systems.gan_compression.build import build
from gencomp.systems.gan_compression.recipe import GanRecipe
from gencomp.systems.gan_compression.system import GanSystem
from shards.building.build import build as build_shards

START = Progress(step=0, samples=0, epoch_length=640)
CLASSES = 4
COLOURS = [[90, 110, 90], [220, 60, 50], [60, 90, 210], [230, 200, 60]]
RECIPES = {
    "distortion": "gan_distortion_narrow",
    "global": "gan_narrow",
    "global_plus": "gan_plus_narrow",
    "conditional": "gan_conditional_narrow",
    "selective": "gan_selective_narrow",
}
MODES = ("global", "global_plus", "conditional", "selective")
_TINY = {
    "networks.width": 3,
    "networks.residual_blocks": 1,
    "labels.classes": CLASSES,
    "labels.class_names": ["ground", "disc", "bar", "square"],  # the sets name those of Cityscapes
}


def overrides(case: str) -> dict[str, Any]:
    """The keys that make the recipe of a case tiny, without a parent."""
    if case == "distortion":
        return _TINY
    fresh = {"parents.distortion": None, "discriminator.width": 4}
    return {**_TINY, **fresh}


def recipe(case: str = "global", **more: Any) -> BaseRecipe:
    return recipes.load(RECIPES[case], {**overrides(case), **more})


def made(case: str = "global", **more: Any) -> GanSystem:
    """A system with the weights of its start.

    Args:
        case: `distortion`, or the mode of an adversarial system.
        more: recipe keys.
    """
    torch.manual_seed(0)
    found = recipe(case, **more)
    assert isinstance(found, GanRecipe)
    return build(found, {})


def scenes(
    n: int, height: int, width: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coloured shapes on textures: images [n, H, W, 3], label ids and instance ids [n, H, W].

    Class 0 is the ground; 1, 2 and 3 are discs, bars and squares, each with a colour of its own.
    """
    numbers = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    labels = np.zeros((n, height, width), np.uint8)
    instances = np.zeros((n, height, width), np.uint16)
    images, colours = np.zeros((n, height, width, 3)), np.array(COLOURS)
    for number in range(n):
        for instance in range(1, 6):
            kind = int(numbers.integers(1, CLASSES))
            row, column = numbers.uniform(0, height), numbers.uniform(0, width)
            size = numbers.uniform(0.1, 0.25) * min(height, width)
            down, across = abs(rows - row), abs(columns - column)
            shape = {
                1: down**2 + across**2 < size**2,
                2: (down < size / 3) & (across < 2 * size),
                3: (down < size) & (across < size),
            }[kind]
            labels[number][shape] = kind
            instances[number][shape] = 10 * kind + instance
        texture = 18 * np.sin(rows / 2 + 3 * np.sin(columns / 9)) + numbers.normal(
            0, 4, (height, width)
        )
        images[number] = colours[labels[number]] + texture[..., None]
    return images.round().clip(0, 255).astype(np.uint8), labels, instances


def batch(n: int = 2, height: int = 64, width: int = 64, seed: int = 0) -> Batch:
    """Shapes with their maps."""
    images, labels, instances = scenes(n, height, width, seed)
    index = torch.arange(n)
    maps = {
        "label": torch.from_numpy(labels),
        "instance": torch.from_numpy(instances.astype(np.int32)),
    }
    images_BCHW = torch.from_numpy(images).permute(0, 3, 1, 2)
    return Batch(images_BCHW, index, index, -torch.ones(n, dtype=torch.int64), maps)


def draws(step: int = 0, n: int = 2) -> Draws:
    return Draws(1, ("train", step, 0), n)


def supply(n: int = 2, size: int = 64) -> Iterator[tuple[Batch, Draws]]:
    for step in range(1000):
        yield batch(n, size, size, seed=step), draws(step, n)


def shard_set(folder: Path, side: int = 72, train: int = 24, test: int = 6) -> Path:
    """A shard set of shapes with maps of labels and instances, in the layout of Cityscapes."""
    source = folder / "scenes"
    for split, count, seed in (("train", train, 0), ("val", test, 1)):
        parts = zip(*scenes(count, side, side + 16, seed), strict=True)
        for number, (image, labels, instances) in enumerate(parts):
            name = f"{split}/town/town_{number:06d}_000019"
            files = {
                f"leftImg8bit/{name}_leftImg8bit.png": image,
                f"gtFine/{name}_gtFine_labelIds.png": labels,
                f"gtFine/{name}_gtFine_instanceIds.png": instances,
            }
            for path, pixels in files.items():
                (source / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(source / path)
    build_shards("cityscapes", folder / "shards", path=source, shard_size=64, processes=1)
    return folder / "shards"


def picture(height: int, width: int, seed: int = 0, index: int = 0) -> Picture:
    """One picture of shapes, with its maps of labels and instances."""
    images, labels, instances = scenes(1, height, width, seed)
    return Picture(images[0], {"label": labels[0], "instance": instances[0]}, index)


def coded(case: str, **more: Any) -> GanSystem:
    """A system with tables of a few images; without more keys, selective keeps 0 and 1."""
    keep = {"codec.keep": [0, 1]} if case == "selective" and not more else {}
    system = made(case, **keep, **more)
    system.networks.eval()
    with torch.no_grad():
        scene = system.channel.scene(batch(8))
        known_BFHW = system.channel.known(system.networks, scene)
        system.code.count([system.channel.latents(system.networks, scene, known_BFHW)])
    return system
