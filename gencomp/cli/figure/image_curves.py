"""`gencomp figure image-curves`, which draws the rate-distortion curve of each image."""

from __future__ import annotations

from typing import Annotated

import tyro

from gencomp.cli.figure.drawing import FigureFile
from gencomp.cli.figure.options import Cuts


def image_curves(
    evaluation: Annotated[str, tyro.conf.Positional],
    /,
    file: Annotated[FigureFile, tyro.conf.OmitArgPrefixes],
    cut: Annotated[Cuts, tyro.conf.OmitArgPrefixes],
) -> None:
    """Draw the rate-distortion curve of each image, and the mean of the curves.

    Args:
        evaluation: Directory that `gencomp slurm collect` was run on, RUN/evaluations/NAME.
        file: The file that the figure is written to.
        cut: The point of the mean curve at which all drawn curves begin.
    """
    from cluster.results import curves
    from gencomp.figures import rate_distortion

    file.check()
    cut.check()
    (one,) = curves.read([evaluation])
    mean = cut.cut(one.curve())
    remarks = [curves.images_and_chains([one])]
    figure = rate_distortion.draw_images(
        one.images(), mean, one.units, "Curves of single images", remarks
    )
    file.write(figure)
