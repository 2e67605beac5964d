"""`gencomp figure ais`, which draws rate-distortion curves by annealed importance sampling."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from gencomp.cli.figure.certificates import print_certificates
from gencomp.cli.figure.drawing import FigureFile
from gencomp.cli.figure.options import Cuts, Evaluations


def ais(
    evaluations: Evaluations,
    /,
    file: Annotated[FigureFile, tyro.conf.OmitArgPrefixes],
    cut: Annotated[Cuts, tyro.conf.OmitArgPrefixes],
    variational: tuple[Path, ...] = (),
    runs: tuple[str, ...] = (),
    evaluation: str = "metrics",
) -> None:
    """Draw rate-distortion curves of generative models, with intervals and their BDMC gaps.

    The curves of one figure may have different decoders, priors and samplers, but must have the
    same data, images, distortion and scale of the values. Since their images are the same, a
    difference of two curves is surer than their bands suggest. LABEL=EVALUATION gives a curve a
    name of its own.

    Args:
        evaluations: Directories that `gencomp slurm collect` was run on, RUN/evaluations/NAME.
        file: The file that the figure is written to.
        cut: The points at which the drawn curves begin.
        variational: Evaluations of `gencomp slurm variational`: points of encoders that were
            trained for decoders of the figure.
        runs: Codecs to draw as operating points: runs, sweeps or metrics.json files, as for
            `gencomp figure curves`, measured on the images of the curves.
        evaluation: Name of the evaluation to take from each of the --runs.
    """
    from cluster.results import curves
    from gencomp.figures import rate_distortion
    from sweeps import operating_points

    file.check()
    cut.check()
    measured = curves.read(evaluations)
    curves.require_one_protocol(measured)
    trained = [curves.variational(path, measured) for path in variational]
    codecs = operating_points.read(runs, evaluation) if runs else []
    points = curves.operating_points(codecs, measured[0]) if runs else []
    print_certificates(measured)
    figure = rate_distortion.draw(
        [cut.cut(one.curve()) for one in measured],
        measured[0].units,
        "Rate-distortion curves" if len(measured) > 1 else "Rate-distortion curve",
        [curves.images_and_chains(measured), curves.band(measured)],
        trained,
        points,
    )
    file.write(figure)
