"""`gencomp figure gaussian`, which draws the closed form of distortion and perception."""

from __future__ import annotations

from typing import Annotated

import tyro

from gencomp.cli.figure.drawing import FigureFile
from gencomp.errors import InputError


def gaussian(
    file: Annotated[FigureFile, tyro.conf.OmitArgPrefixes],
    rates: tuple[float, ...] = (0.5, 1.0, 2.0),
) -> None:
    """Draw the least distortion of a Gaussian source at each perception, for some rates.

    Args:
        file: The file that the figure is written to.
        rates: Rates in bits, up to six.
    """
    from gencomp.figures.style import COLOURS
    from gencomp.figures.tradeoff import draw_gaussian

    file.check()
    if not 1 <= len(rates) <= len(COLOURS) or min(rates) <= 0:
        raise InputError(f"--rates takes one to {len(COLOURS)} rates, each above 0")
    file.write(draw_gaussian(rates, "Distortion and perception of a Gaussian"))
