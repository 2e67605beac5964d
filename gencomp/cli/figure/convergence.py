"""`gencomp figure convergence`, which shows how reliable rate-distortion curves by AIS are."""

from __future__ import annotations

from typing import Annotated

import tyro

from gencomp.cli.figure.certificates import print_certificates
from gencomp.cli.figure.drawing import FigureFile
from gencomp.cli.figure.options import Evaluations


def convergence(
    evaluations: Evaluations, /, file: Annotated[FigureFile, tyro.conf.OmitArgPrefixes]
) -> None:
    """Draw how reliable curves are: effective sample size, acceptance, and the BDMC gap.

    Several evaluations of one decoder with different numbers of temperatures show how the gap
    falls, beside the gap of a single chain with perfect moves.

    Args:
        evaluations: Directories of evaluations of one decoder that `gencomp slurm collect` was run
            on.
        file: The file that the figure is written to.
    """
    from cluster.results import curves
    from gencomp.figures import convergence

    file.check()
    measured = curves.read(evaluations)
    curves.require_one_protocol(measured, one_decoder=True)
    curves.require_gaps(measured)
    print_certificates(measured)
    figure = convergence.draw(
        [one.convergence() for one in measured],
        "Convergence",
        [
            curves.images_and_chains(measured),
            "bands: the middle 80 % of the images; bars: 95 %",
        ],
    )
    file.write(figure)
