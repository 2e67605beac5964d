"""`gencomp figure choice`, which shows one compressed file through several decoders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from gencomp.cli.arguments import Checkpoint
from gencomp.cli.figure.drawing import FigureFile
from gencomp.errors import InputError


def choice(
    stream: tyro.conf.Positional[Path],
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")],
    /,
    file: Annotated[FigureFile, tyro.conf.OmitArgPrefixes],
    checkpoint: Checkpoint = "last",
    images: int = 8,
    scale: int = 2,
) -> None:
    """Draw the pictures of one compressed file as each of several decoders shows them.

    The decoders must read the files of the same encoder; the receiver of a file chooses among them.

    Args:
        stream: A compressed file.
        runs: Runs or sweeps (their finished trials) whose decoders read the file.
        file: The file that the figure is written to.
        images: How many pictures to draw, from the first.
        scale: How many pixels of the figure a pixel of a picture takes.
    """
    from cluster.results.decoded import through_decoders
    from gencomp.figures import tiles
    from sweeps.operating_points import runs_of

    file.check()
    if images < 1 or scale < 1:
        raise InputError("--images and --scale must be at least 1")
    paths = [path for one in runs for path in runs_of(one)]
    columns, said = through_decoders(stream, paths, checkpoint, images)
    sheet = tiles.Sheet("One file through its decoders", said, columns)
    file.write(tiles.draw(sheet, scale))
