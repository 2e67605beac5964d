"""The images that a recipe names: what it trains on and in which order, and what is held out."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

import shards
from gencomp.recipes.schema import BaseRecipe, DataSection
from gencomp.system import Batch
from shards.info import DatasetInfo
from shards.reading.mixture import MixedSplit, Part, mix
from shards.reading.order import EpochOrder, Order
from shards.reading.reader import Split
from shards.reading.stream import Batch as HostBatch
from shards.reading.stream import evaluation_batches, read_batch, training_batches
from shards.reading.transforms import Transforms
from shards.reading.windowed import WindowedOrder


def open_training(recipe: BaseRecipe) -> tuple[Split | MixedSplit, Order]:
    """The training images, of one shard set or a mixture, and the order they come in.

    Raises:
        ShardError: a set or a split is missing.
    """
    data, seed = recipe.data, recipe.training.seed
    if data.shards is not None:
        split = shards.open_set(data.shards).split(data.split)
        return split, _order(split, data, seed)
    parts = []
    for one in data.mixture:
        split = shards.open_set(one.shards).split(one.split)
        parts.append(Part(split, _order(split, data, seed), one.weight))
    return mix(parts)


def open_held_out(recipe: BaseRecipe) -> Split:
    """The images that the recipe evaluates on.

    Raises:
        ShardError: the set or its split is missing.
    """
    return shards.open_set(recipe.evaluation_shards()).split(recipe.evaluation.split)


def hashes(recipe: BaseRecipe) -> dict[str, str]:
    """What identifies the images of a recipe, for the identity of its run.

    `data`: the index hash of the training set or mixture; `evaluation.data`: that of the set that
    is evaluated on, where it is not simply the same.

    Raises:
        ShardError: a set or a split is missing.
    """
    training, _ = open_training(recipe)
    held_out = open_held_out(recipe)
    if recipe.data.shards is not None and recipe.evaluation.shards is None:
        return {"data": held_out.index_hash}
    return {"data": training.index_hash, "evaluation.data": held_out.index_hash}


def stored(info: DatasetInfo) -> dict[str, Any]:
    """How a set's images were made and stored, for the protocol of what is measured on them."""
    return {"name": info.name, "source": info.source, **info.transform.model_dump(mode="json")}


def training_stream(
    recipe: BaseRecipe,
    images: Split | MixedSplit,
    order: Order,
    rank: int,
    world: int,
    start: int,
) -> Generator[HostBatch, None, None]:
    """A rank's shares of the training stream's batches, from a position on."""
    return training_batches(
        images,
        order,
        batch_size=recipe.data.batch_size,
        rank=rank,
        world=world,
        start_position=start,
        threads=recipe.data.decode_threads,
        transforms=_transforms(recipe),
        maps=recipe.data.maps,
    )


def held_out_batches(
    recipe: BaseRecipe, held_out: Split, batch_size: int, rank: int, world: int, limit: int | None
) -> Iterator[HostBatch]:
    """A rank's shares of one pass over the held-out images, under the recipe's fixed transforms."""
    return evaluation_batches(
        held_out,
        batch_size,
        rank=rank,
        world=world,
        limit=limit,
        transforms=_transforms(recipe),
        maps=recipe.data.maps,
    )


def held_out_rows(recipe: BaseRecipe, held_out: Split, rows: Sequence[int]) -> HostBatch:
    """Some held-out images as evaluations see them."""
    chosen = np.array(rows, dtype=np.int64)
    return read_batch(held_out, chosen, _transforms(recipe), recipe.data.maps)


def to_batch(host: HostBatch, device: torch.device) -> Batch:
    """Arrays of the reader as tensors on the device, images as BCHW."""

    def moved(array: np.ndarray) -> torch.Tensor:
        if array.dtype == np.uint16:  # torch has few operations on it
            array = array.astype(np.int32)
        return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)

    maps: Mapping[str, torch.Tensor] = {name: moved(array) for name, array in host.maps.items()}
    images_BHWC, rows, positions, labels = map(
        moved, (host.images, host.rows, host.positions, host.labels)
    )
    return Batch(images_BHWC.permute(0, 3, 1, 2), rows, positions, labels, maps)


def _order(split: Split, data: DataSection, seed: int) -> Order:
    if data.order == "global":
        return EpochOrder(split.key_hash, seed, len(split))
    return WindowedOrder(split.key_hash, seed, split.shard_lengths, data.window, data.lanes)


def _transforms(recipe: BaseRecipe) -> Transforms:
    chosen = recipe.data.transforms
    return Transforms(chosen.resize, chosen.crop, chosen.flip, chosen.dither)
