"""Pictures of generative models: a run's own reconstructions, and samples of its prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from cluster.data import held_out_rows
from cluster.evaluations.plans import spaced
from cluster.results import histories
from cluster.results.pictures import psnr_captions
from cluster.runs import Run
from gencomp.draws import Draws
from gencomp.report import Generator, PictureRow
from gencomp.system import Batch, Picture, System, evaluation_mode
from shards.reading.reader import ShardSet


class Originals(NamedTuple):
    """Images evenly spaced over the evaluation split: their row, and what codecs take of them."""

    row: PictureRow
    pictures: list[Picture]


def read_originals(run: Run, shard_set: ShardSet, images: int) -> Originals:
    """The images to show, with the maps that the recipe of a run reads."""
    recipe = run.recipe()
    split = shard_set.split(recipe.evaluation.split)
    chosen = spaced(len(split), images, split.name)
    host = held_out_rows(recipe, split, chosen)
    pictures = [
        Picture(image_HWC, {name: maps[place] for name, maps in host.maps.items()}, place)
        for place, image_HWC in enumerate(host.images)
    ]
    note = f"{split.name} images {', '.join(map(str, chosen))} of {len(split)}; 24 bpp"
    return Originals(PictureRow("Originals", note, list(host.images)), pictures)


def read_generator(
    run: Run | None, originals: Sequence[Picture]
) -> tuple[Generator | None, list[PictureRow]]:
    """The run as a generator, with the rows of its own reconstructions and its prior samples."""
    if run is None:
        return None, []
    history, metrics = histories.read(run, run.name)
    rows = _system_pictures(run.system(), run.recipe().training.seed, originals)
    return Generator(run.name, run.result() or metrics, history), rows


def _system_pictures(system: System, seed: int, originals: Sequence[Picture]) -> list[PictureRow]:
    """The rows of `System.pictures`, reconstructions first, without the originals."""
    images_BHWC = torch.from_numpy(np.stack([one.image_HWC for one in originals]))
    count = len(originals)
    places_B = torch.arange(count)
    maps = {
        name: torch.from_numpy(np.stack([one.maps[name] for one in originals]))
        for name in originals[0].maps
    }
    images_BCHW = images_BHWC.permute(0, 3, 1, 2).contiguous()
    batch = Batch(images_BCHW, places_B, places_B, torch.full((count,), -1), maps)
    with evaluation_mode(system.networks):
        rows = system.pictures(batch, Draws(seed, ("report",), count))
    pictures = []
    for title, row_BCHW in rows.items():
        if title == "originals":
            continue
        images = list(row_BCHW.permute(0, 2, 3, 1).numpy())
        if title == "reconstructions":
            captions = psnr_captions([one.image_HWC for one in originals], images)
            pictures.append(
                PictureRow("The generator’s own encoder", "no rate limit", images, captions)
            )
        else:
            pictures.append(PictureRow(title.capitalize(), f"seed {seed}", images))
    return pictures
