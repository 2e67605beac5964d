"""`gencomp figure rates`, which draws images beside their reconstructions at every rate."""

from __future__ import annotations

from typing import Annotated

import tyro

from gencomp.cli.arguments import Checkpoint
from gencomp.cli.figure.drawing import FigureFile
from gencomp.cli.figure.options import Runs, TileOptions, checkpoint_remarks


def rates(
    runs: Runs,
    /,
    file: Annotated[FigureFile, tyro.conf.OmitArgPrefixes],
    tile: Annotated[TileOptions, tyro.conf.OmitArgPrefixes],
    checkpoint: Checkpoint = "last",
    images: int = 4,
    rows: tuple[int, ...] = (),
) -> None:
    """Draw images beside their reconstructions at each rate, with several draws of the noise.

    Each row shows one image: the original, samples of the generator's prior (0 bpp), then the
    reconstructions of each run, which are the same that `gencomp evaluate` measures.

    Args:
        runs: Codecs on one generator, one for each rate.
        file: The file that the figure is written to.
        tile: The split, the draws and the size of the tiles.
        images: How many images to draw, evenly spaced over the split.
        rows: Numbers of the images in the split to draw instead.
    """
    from cluster.results.pictures import finished_runs
    from cluster.results.rates import along_the_rate, choose
    from gencomp.figures import tiles

    file.check()
    tile.check()
    opened = finished_runs(runs, checkpoint)
    chosen = choose(opened, tile.split, images, rows)
    original, *others = along_the_rate(opened, chosen, tile.draws, tile.seed)
    alone = tiles.Column(original.heading, original.remark, [row[:1] for row in original.tiles])
    sheet = tiles.Sheet(
        "Reconstructions along the rate",
        [
            f"{chosen.said} images (number {', '.join(map(str, chosen.rows))})",
            f"{tile.draws} draws of the noise each; 0 bpp: samples of the prior, whatever the"
            " image",
            "Rates: bits of code in one container of these images; bytes: the whole container;"
            " both for an image",
            *checkpoint_remarks(checkpoint),
        ],
        [alone, *others],
    )
    file.write(tiles.draw(sheet, tile.scale))
