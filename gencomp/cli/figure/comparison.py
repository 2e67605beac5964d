"""`gencomp figure comparison`, which shows an image beside what its compressed files decode to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from gencomp.cli.arguments import Checkpoint
from gencomp.cli.figure.drawing import FigureFile
from gencomp.errors import InputError


def comparison(
    run: tyro.conf.Positional[Path],
    image: tyro.conf.Positional[Path],
    streams: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE...")],
    /,
    file: Annotated[FigureFile, tyro.conf.OmitArgPrefixes],
    maps: tuple[str, ...] = (),
    checkpoint: Checkpoint = "last",
    scale: int = 1,
) -> None:
    """Draw an image, its maps, and what each of its compressed files decodes to, side by side.

    Args:
        run: The run whose codec reads the files.
        image: The image.
        streams: Compressed files of this one image, for example with different regions kept.
        file: The file that the figure is written to.
        maps: Maps of the image's pixels to show, NAME=PNG of each, in a colour for each id.
        scale: How many pixels of the figure a pixel of the image takes.
    """
    from cluster.results.decoded import beside
    from gencomp.figures import tiles
    from shards.reading.maps import parse_maps

    file.check()
    if scale < 1:
        raise InputError("--scale must be at least 1")
    if not streams:
        raise InputError("name at least one compressed FILE of the image")
    columns = beside(run, checkpoint, image, parse_maps(maps), streams)
    sheet = tiles.Sheet(f"{image.name} and its files", [f"Decoded by {run}"], columns)
    file.write(tiles.draw(sheet, scale))
