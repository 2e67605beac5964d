"""Pictures of generative models: a run's own reconstructions, and samples of its prior."""

from __future__ import annotations

from typing import NamedTuple

import torch

from cluster.data import HostBatch, held_out_rows, pictures_of, to_batch
from cluster.evaluations.plans import spaced
from cluster.results import histories
from cluster.results.pictures import psnr_captions
from cluster.runs import Run
from gencomp.draws import Draws
from gencomp.report import Generator, PictureRow
from gencomp.system import Picture, System, evaluation_mode
from shards.reading.reader import ShardSet


class Originals(NamedTuple):
    """Images evenly spaced over the evaluation split, with their maps.

    Attributes:
        row: the row that shows them.
        host: the images as they were read; None where there are none to show.
    """

    row: PictureRow
    host: HostBatch | None

    @property
    def pictures(self) -> list[Picture]:
        """The images as codecs take them."""
        return [] if self.host is None else pictures_of(self.host, range(len(self.host.images)))


def read_originals(run: Run, shard_set: ShardSet, images: int) -> Originals:
    """The images to show, with the maps that the recipe of a run reads."""
    recipe = run.recipe()
    split = shard_set.split(recipe.evaluation.split)
    chosen = spaced(len(split), images, split.name)
    host = held_out_rows(recipe, split, chosen)
    note = f"{split.name} images {', '.join(map(str, chosen))} of {len(split)}; 24 bpp"
    return Originals(PictureRow("Originals", note, list(host.images)), host)


def read_generator(
    run: Run | None, originals: Originals
) -> tuple[Generator | None, list[PictureRow]]:
    """The run as a generator, with the rows of its own reconstructions and its prior samples."""
    if run is None or originals.host is None:
        return None, []
    history, metrics = histories.read(run, run.name)
    rows = _system_pictures(run.system(), run.recipe().training.seed, originals.host)
    return Generator(run.name, run.result() or metrics, history), rows


def _system_pictures(system: System, seed: int, host: HostBatch) -> list[PictureRow]:
    """The rows of `System.pictures`, reconstructions first, without the originals."""
    batch = to_batch(host, torch.device("cpu"))
    with evaluation_mode(system.networks):
        rows = system.pictures(batch, Draws(seed, ("report",), len(host.images)))
    pictures = []
    for title, row_BCHW in rows.items():
        if title == "originals":
            continue
        images = list(row_BCHW.permute(0, 2, 3, 1).numpy())
        if title == "reconstructions":
            captions = psnr_captions(list(host.images), images)
            pictures.append(
                PictureRow("The generator’s own encoder", "no rate limit", images, captions)
            )
        else:
            pictures.append(PictureRow(title.capitalize(), f"seed {seed}", images))
    return pictures
