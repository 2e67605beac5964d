"""Small VAEs, batches, and a shard set of grey blobs, as several test files use them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gencomp import recipes
from gencomp.draws import Draws
from gencomp.system import Batch, Progress
from gencomp.systems.vae.recipe import VaeRecipe
from gencomp.systems.vae.system import Vae
from shards.building.build import build

START = Progress(step=0, samples=0, epoch_length=64)
DEEP = {"networks.widths": [8, 6], "networks.latent_dim": 3, "networks.image_size": [8, 8]}
LINEAR = DEEP | {"networks.decoder": "linear", "networks.widths": []}
DCGAN = {
    "networks.decoder": "dcgan",
    "networks.widths": [2],
    "networks.latent_dim": 3,
    "networks.channels": 3,
    "networks.image_size": [32, 32],
}
DECODERS: dict[str, dict[str, Any]] = {"deep": DEEP, "linear": LINEAR, "dcgan": DCGAN}


def recipe(decoder: str = "deep", **overrides: Any) -> VaeRecipe:
    found = recipes.load("vae_digits", DECODERS[decoder] | overrides)
    assert isinstance(found, VaeRecipe)
    return found


def made(decoder: str = "deep", **overrides: Any) -> Vae:
    """A system with the weights of its start."""
    torch.manual_seed(0)
    return Vae(recipe(decoder, **overrides))


def batch(system: Vae, n: int = 6, seed: int = 0) -> Batch:
    """Noise in the format of a system."""
    pixels = system.pixels
    shape = (n, pixels.channels, pixels.height, pixels.width)
    images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    images_BCHW = torch.from_numpy(images).expand(-1, 3, -1, -1)
    index = torch.arange(n)
    return Batch(images_BCHW, index, index, -torch.ones(n, dtype=torch.int64))


def draws(step: int = 0, n: int = 6) -> Draws:
    return Draws(1, ("train", step, 0), n)


def blobs(folder: Path, train: int = 256, test: int = 64, side: int = 8) -> Path:
    """A shard set of grey blobs at random places, in the format of MNIST."""
    rng = np.random.default_rng(0)
    axis = np.arange(side)
    source = folder / "idx"
    source.mkdir()
    for prefix, count in (("train", train), ("t10k", test)):
        row, column = rng.uniform(1, side - 2, (2, count, 1))
        images = np.exp(-0.5 * ((axis - row)[:, :, None] ** 2 + (axis - column)[:, None] ** 2))
        for name, array in (
            ("images-idx3", np.round(255 * images)),
            ("labels-idx1", np.zeros(count)),
        ):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            content = gzip.compress(head + array.astype(np.uint8).tobytes())
            (source / f"{prefix}-{name}-ubyte.gz").write_bytes(content)
    build("mnist", folder / "blobs", path=source, shard_size=128, processes=1)
    return folder / "blobs"
