"""`gencomp figure shared-bits`, which draws what limited shared randomness costs."""

from __future__ import annotations

from typing import Annotated

import tyro

from gencomp.cli.figure.drawing import FigureFile
from gencomp.cli.figure.options import Runs


def shared_bits(
    runs: Runs,
    /,
    file: Annotated[FigureFile, tyro.conf.OmitArgPrefixes],
    at: tuple[float, ...] = (),
    distortion: str = "mse_unit",
    perception: str = "critic_distance",
) -> None:
    """Draw distortion at equal perception against the bits that sender and receiver share.

    Runs that share so many bits are a curve of distortion and perception, which is read at a given
    perception: the least distortion of all runs and mixtures of two whose perception is no
    greater. Runs must differ in their loss, their shared bits and their seed alone. Beside them
    stands the closed form of a Gaussian of as many values as the code has latents, at the code's
    rate and at equal distributions.

    Args:
        runs: Finished runs, or sweeps (their finished trials).
        file: The file that the figure is written to.
        at: Perceptions at which curves are read, up to six; by default the least one that all
            curves reach.
        distortion: Metric that is read.
        perception: Metric at which it is read.
    """
    from cluster.results.shared_bits import curves
    from gencomp.figures import shared_bits
    from sweeps.operating_points import runs_of

    file.check()
    paths = [path for one in runs for path in runs_of(one)]
    found = curves(paths, distortion, perception, at)
    file.write(shared_bits.draw(found, distortion, perception, "What limited shared bits cost"))
