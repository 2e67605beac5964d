"""The images that a recipe names: training images with their order, and held-out images."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import shards
from cluster import provenance
from cluster.files import read_json
from cluster.runs import Run
from gencomp.recipes.schema import BaseRecipe, DataSection, TransformsSection
from gencomp.system import Batch, Picture
from shards.errors import ShardError
from shards.info import DatasetInfo
from shards.reading.files import is_uri
from shards.reading.mixture import MixedSplit, Part, mix
from shards.reading.order import EpochOrder, Order
from shards.reading.reader import ShardSet, Split
from shards.reading.stream import Batch as HostBatch
from shards.reading.stream import chosen_batches, read_batch, training_batches
from shards.reading.transforms import Transforms
from shards.reading.windowed import WindowedOrder


def open_training(recipe: BaseRecipe) -> tuple[Split | MixedSplit, Order]:
    """The training images, from one shard set or a mixture, and their order.

    Raises:
        ShardError: a shard set or a split is missing.
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
    """The images on which the recipe evaluates.

    Raises:
        ShardError: the shard set or its split is missing.
    """
    return shards.open_set(recipe.evaluation_shards()).split(recipe.evaluation.split)


def open_evaluation_set(run: Run) -> ShardSet:
    """The shard set on which a run is evaluated.

    Raises:
        ShardError: it is missing; the sentence says how a project that has moved is mended.
    """
    location = run.recipe().evaluation_shards()
    if is_uri(location) or Path(location).exists():
        return shards.open_set(location)
    environment = read_json(run.path / provenance.FILE) or {}
    raise ShardError(
        f"run {run.path} was made on the shard set {location}, which is not there: if the project"
        f" has moved, `{environment.get('command', 'gencomp train ...')}`, given again from its new"
        " place, notes the new paths"
    )


def hashes(recipe: BaseRecipe) -> dict[str, str]:
    """The hashes that identify the images of a recipe, for the identity of its run.

    The entry `data` is the index hash of the training set or mixture. The entry `evaluation.data`
    is the index hash of the set for evaluations, unless that is the training set itself.

    Raises:
        ShardError: a shard set or a split is missing.
    """
    training, _ = open_training(recipe)
    held_out = open_held_out(recipe)
    if recipe.data.shards is not None and recipe.evaluation.shards is None:
        return {"data": held_out.index_hash}
    return {"data": training.index_hash, "evaluation.data": held_out.index_hash}


def classes_of_maps(recipe: BaseRecipe) -> dict[str, list[str]]:
    """The names of the ids of each map of the training images; in a mixture, those that all share.

    Raises:
        ShardError: a shard set is missing.
    """
    places = [recipe.data.shards, *(one.shards for one in recipe.data.mixture)]
    first, *others = [
        shards.open_set(place).info.classes_of_maps for place in places if place is not None
    ]
    return {
        name: names
        for name, names in first.items()
        if all(other.get(name) == names for other in others)
    }


def stored(info: DatasetInfo) -> dict[str, Any]:
    """How the images of a set were made and stored, for protocols of what is measured on them."""
    return {"name": info.name, "source": info.source, **info.transform.model_dump(mode="json")}


def training_stream(
    recipe: BaseRecipe,
    images: Split | MixedSplit,
    order: Order,
    rank: int,
    world: int,
    start: int,
) -> Generator[HostBatch, None, None]:
    """The rank's shares of the training stream's batches, from a position on."""
    return training_batches(
        images,
        order,
        batch_size=recipe.data.batch_size,
        rank=rank,
        world=world,
        start_position=start,
        threads=recipe.data.decode_threads,
        transforms=_training_transforms(recipe),
        maps=recipe.data.maps,
    )


def held_out_sizes(recipe: BaseRecipe, held_out: Split, rows: Sequence[int]) -> np.ndarray:
    """The (height, width) of some held-out images as evaluations see them, int64 [n, 2]."""
    if (size := recipe.evaluation.transforms.size) is not None:
        return np.broadcast_to(np.array(size), (len(rows), 2))
    stored_N2 = held_out.sizes(np.array(rows, dtype=np.int64))
    transforms = _evaluation_transforms(recipe)
    if not transforms.whole:
        return stored_N2
    kinds_K2, kind_N = np.unique(stored_N2, axis=0, return_inverse=True)
    seen = [transforms.view((height, width), None).kept for height, width in kinds_K2.tolist()]
    return np.array(seen, dtype=np.int64).reshape(-1, 2)[kind_N.reshape(-1)]


def of_one_size(sizes_N2: np.ndarray) -> list[np.ndarray]:
    """The places of the images of each size. Sizes are in the order in which they first occur."""
    if (sizes_N2 == sizes_N2[:1]).all():
        return [np.arange(len(sizes_N2))]
    _, firsts, kinds_N = np.unique(sizes_N2, axis=0, return_index=True, return_inverse=True)
    return [np.flatnonzero(kinds_N.reshape(-1) == kind) for kind in np.argsort(firsts)]


def held_out_order(
    recipe: BaseRecipe, held_out: Split, batch_size: int, images: int
) -> list[np.ndarray]:
    """The rows of the first held-out images in global batches, each with images of one size.

    If all images have the same size, they are in the order of the split.
    """
    groups = of_one_size(held_out_sizes(recipe, held_out, range(images)))
    return [
        rows[begin : begin + batch_size]
        for rows in groups
        for begin in range(0, len(rows), batch_size)
    ]


def held_out_batches(
    recipe: BaseRecipe, held_out: Split, order: Iterable[np.ndarray], rank: int, world: int
) -> Iterator[HostBatch]:
    """The rank's shares of global batches of held-out images, under the transforms of evaluations.

    Args:
        recipe: the run's recipe.
        held_out: the split that holds the images.
        order: the rows of each global batch, as `held_out_order` gives them.
        rank: the rank.
        world: the number of ranks.
    """
    transforms = _evaluation_transforms(recipe)
    return chosen_batches(held_out, order, rank, world, transforms, recipe.data.maps)


def held_out_rows(
    recipe: BaseRecipe, held_out: Split, rows: Sequence[int], maps: Sequence[str] = ()
) -> HostBatch:
    """Some held-out images of one size as evaluations see them.

    Args:
        recipe: the run's recipe, which names the maps that its method uses.
        held_out: the split that holds the images.
        rows: the rows of the images.
        maps: the names of further maps.
    """
    chosen = np.array(rows, dtype=np.int64)
    names = tuple(dict.fromkeys([*recipe.data.maps, *maps]))
    return read_batch(held_out, chosen, _evaluation_transforms(recipe), names)


def pictures_of(host: HostBatch, indices: Iterable[int]) -> list[Picture]:
    """The images of a batch with their maps, as a codec takes them.

    Args:
        host: the batch.
        indices: the index of each picture, the key of shared randomness.
    """
    return [
        Picture(image_HWC, {name: maps[place] for name, maps in host.maps.items()}, index)
        for place, (image_HWC, index) in enumerate(zip(host.images, indices, strict=True))
    ]


def held_out_picture(recipe: BaseRecipe, held_out: Split, row: int) -> Picture:
    """One held-out image as a codec takes it, with its row as the key of shared randomness."""
    return pictures_of(held_out_rows(recipe, held_out, [row]), [row])[0]


def evaluation_protocol(recipe: BaseRecipe) -> dict[str, Any]:
    """The transforms of an image before it is evaluated, for the protocol of the results."""
    chosen = recipe.evaluation.transforms
    cut = TransformsSection(resize=chosen.resize, crop=chosen.crop).model_dump(mode="json")
    # Results that are older than this choice do not state it.
    return cut | ({"whole": True} if chosen.whole else {})


def to_batch(host: HostBatch, device: torch.device) -> Batch:
    """The reader's arrays as tensors on the device, with images as BCHW."""

    def moved(array: np.ndarray) -> torch.Tensor:
        if array.dtype == np.uint16:  # torch has few operations for this type
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


def _training_transforms(recipe: BaseRecipe) -> Transforms:
    chosen = recipe.data.transforms
    return Transforms(chosen.resize, chosen.crop, chosen.flip, chosen.dither)


def _evaluation_transforms(recipe: BaseRecipe) -> Transforms:
    chosen = recipe.evaluation.transforms
    return Transforms(chosen.resize, chosen.crop, whole=chosen.whole)
