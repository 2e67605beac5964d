"""The blocks of latents that relative entropy coding has to code for held-out pictures of a run."""

from __future__ import annotations

from pathlib import Path

from cluster.results import pictures
from gencomp.coding.latent_model import Gaussian
from gencomp.errors import InputError


def of_run(path: Path, checkpoint: str, split: str, images: int, blocks: int) -> list[Gaussian]:
    """Evenly spaced blocks of a run's pictures, standardised.

    Args:
        path: the run's directory.
        checkpoint: the choice of its checkpoint.
        split: the split of the pictures.
        images: the number of pictures, evenly spaced over the split.
        blocks: the number of blocks, or fewer if the pictures have fewer.

    Raises:
        InputError: the run is not finished, its codec has no such latents, or the pictures have no
            blocks at all.
        ShardError: the shard set or the split is missing.
    """
    run = pictures.finished(path, checkpoint)
    system = run.system()
    found: list[Gaussian] = []
    for picture in pictures.choose_images([run], split, images).pictures(run.recipe()):
        targets = system.targets(picture)
        if targets is None:
            raise InputError(
                f"{pictures.stage(run)} has no latents that relative entropy coding could code"
            )
        found += targets
    if not found:
        raise InputError(f"{images} pictures of {pictures.stage(run)} have no nats to code")
    count = min(blocks, len(found))
    return [found[place * len(found) // count] for place in range(count)]
