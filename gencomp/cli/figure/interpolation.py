"""`gencomp figure interpolation`, which draws one image from generation to reconstruction."""

from __future__ import annotations

from typing import Annotated

import tyro

from gencomp.cli.arguments import Checkpoint
from gencomp.cli.figure.drawing import FigureFile
from gencomp.cli.figure.options import Runs, TileOptions, checkpoint_remarks


def interpolation(
    runs: Runs,
    /,
    file: Annotated[FigureFile, tyro.conf.OmitArgPrefixes],
    tile: Annotated[TileOptions, tyro.conf.OmitArgPrefixes],
    checkpoint: Checkpoint = "last",
    image: int = 0,
) -> None:
    """Draw one image from generation (0 bpp) to reconstruction, with the noise held fixed.

    Each row is one draw of the noise: along a row, B sees the same noise at every rate.

    Args:
        runs: Codecs on one generator, one for each rate.
        file: The file that the figure is written to.
        tile: The split, the draws and the size of the tiles.
        image: Number of the image in the split.
    """
    from cluster.results.pictures import finished_runs
    from cluster.results.rates import along_the_rate, choose
    from gencomp.figures import tiles

    file.check()
    tile.check()
    opened = finished_runs(runs, checkpoint)
    chosen = choose(opened, tile.split, None, (image,))
    original, *others = along_the_rate(opened, chosen, tile.draws, tile.seed)
    upright = [
        tiles.Column(column.heading, column.remark, [[tile] for tile in column.tiles[0]])
        for column in (*others, original)
    ]
    sheet = tiles.Sheet(
        "From generation to reconstruction",
        [
            f"{chosen.data_set}, {tile.split} split, image {image}",
            "Held fixed along a row: image, generator and the noise that B sees",
            "0 bpp: a sample of the prior, which knows nothing of the image",
            "Rates: bits of code in the image's file; bytes: the whole file",
            *checkpoint_remarks(checkpoint),
        ],
        upright,
        [f"draw {draw + 1}" for draw in range(tile.draws)],
    )
    file.write(tiles.draw(sheet, tile.scale))
