"""`gencomp figure rates`: images beside their reconstructions at every rate."""

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
    """Draw images beside their reconstructions at each rate, several draws of the noise each.

    A row an image: the original, samples of the generator's prior (0 bpp), then each run's
    reconstructions, the same as `gencomp evaluate` measures.

    Args:
        runs: Codecs on one generator, one for each rate.
        file: Where the figure goes.
        tile: What is drawn of the images, and how.
        images: How many, evenly spaced over the split.
        rows: These images of the split instead, by number.
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
            "Rates are nominal, those of a code of fixed length",
            *checkpoint_remarks(checkpoint),
        ],
        [alone, *others],
    )
    file.write(tiles.draw(sheet, tile.scale))
