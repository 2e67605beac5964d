"""`gencomp figure latent`, which draws the distribution of latents beside their prior."""

from __future__ import annotations

from typing import Annotated

import tyro

from gencomp.cli.arguments import Checkpoint
from gencomp.cli.console import print_table
from gencomp.cli.figure.drawing import FigureFile
from gencomp.cli.figure.options import Runs, checkpoint_remarks
from gencomp.errors import InputError
from gencomp.evaluation import scales

_MOST_LATENTS = 6


def latent(
    runs: Runs,
    /,
    file: Annotated[FigureFile, tyro.conf.OmitArgPrefixes],
    checkpoint: Checkpoint = "last",
    images: int | None = None,
    split: str = "test",
    seed: int = 7,
) -> None:
    """Draw how the latents of up to six runs are distributed beside their prior.

    The command also prints the MMD of each run with a 95 % interval, and the range of the MMD that
    chance alone gives.

    Args:
        runs: Codecs, or generators with an encoder, which have the same prior.
        file: The file that the figure is written to.
        images: How many images to encode, evenly spaced over the split; by default all images, but
            at most 2048.
        split: Split whose images are encoded.
        seed: Seed of the noise and of the prior's samples.
    """
    from cluster.results.latents import choose, compare
    from cluster.results.pictures import finished_runs, names_of
    from gencomp.figures import latents

    file.check()
    if len(runs) > _MOST_LATENTS:
        raise InputError(f"{len(runs)} runs are too many for one figure of latents, which has 6")
    opened = finished_runs(runs, checkpoint)
    chosen = choose(opened, split, images)
    compared = compare(opened, names_of(opened), chosen, seed)
    low, high = compared.chance
    rows = [
        [one.name, f"{found.value:.5f}", _said(found.interval)]
        for one, found in zip(compared.sets, compared.measured, strict=True)
    ]
    rows.append(["chance", f"{compared.null.mean():.5f}", _said((low, high))])
    title = f"MMD to the prior, {chosen.said} images"
    print_table(title, ["run", "MMD", "95 %"], rows, scales.negative(["mmd"]))
    dimensions, variance = compared.sets[0].z_NM.shape[1], compared.sets[0].variance
    remarks = [
        f"{chosen.said} images; prior N(0, {variance:g} I) of {dimensions} dimensions;"
        f" chance: {latents.NULL_DRAWS} pairs of samples of the prior",
        *checkpoint_remarks(checkpoint),
    ]
    figure = latents.draw(
        compared.sets, compared.measured, compared.null, "Latents and their prior", remarks
    )
    file.write(figure)


def _said(ends: tuple[float, float] | None) -> str:
    return "unknown" if ends is None else "{:.5f} to {:.5f}".format(*ends)
