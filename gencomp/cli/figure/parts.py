"""`gencomp figure parts`, which draws what files are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from gencomp.cli.figure.drawing import FigureFile


def parts(
    results: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RESULT...")],
    /,
    file: Annotated[FigureFile, tyro.conf.OmitArgPrefixes],
    files: str = "files",
) -> None:
    """Draw the rate of files by part: latents, label map, instance map, mask, and container.

    A bar is the mean over pictures of all bits of a picture's own file, per pixel, as gencomp files
    has measured it, with the 95 % interval. All results must be of the same pictures.

    Args:
        results: Runs, sweeps (their finished trials), or measurements by gencomp files, such as
            RUN/evaluations/NAME, for example those of a run that kept several classes.
        file: The file that the figure is written to.
        files: Name of the measurement to take from each run.
    """
    from cluster.results import file_parts
    from gencomp.figures.file_parts import draw
    from sweeps.operating_points import runs_of

    file.check()
    paths = [path for one in results for path in runs_of(one)]
    found, pictures = file_parts.read(paths, files)
    remarks = [
        f"Real files of one picture each, all bits counted: {pictures}",
        "Lines: 95 % intervals of the whole rate over pictures",
    ]
    file.write(draw(found, "Rate by part", remarks))
