"""Arguments that several commands of `gencomp figure` share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gencomp.errors import InputError

if TYPE_CHECKING:
    from gencomp.figures.rate_distortion import DrawnCurve

Runs = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
Evaluations = Annotated[
    tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="EVALUATION...")
]


def checkpoint_remarks(checkpoint: str) -> list[str]:
    """The line of a figure about the checkpoints; none for the last ones, which are the default."""
    return [] if checkpoint == "last" else [f"Checkpoint of each run: {checkpoint}"]


@dataclass(frozen=True)
class TileOptions:
    """The split, the draws and the size of the tiles.

    Attributes:
        draws: How many reconstructions of an image are drawn at each rate, each with its own noise.
        split: Split that the images are taken from.
        seed: Seed of the noise.
        scale: Side in pixels of the square that is drawn for each pixel of an image.
    """

    draws: int = 3
    split: str = "test"
    seed: int = 7
    scale: int = 2

    def check(self) -> None:
        """Check the numbers.

        Raises:
            InputError: A number is too small.
        """
        for name in ("draws", "scale"):
            if (value := getattr(self, name)) < 1:
                raise InputError(f"--{name} is {value}, but it must be at least 1")


@dataclass(frozen=True)
class Cuts:
    """The points at which the drawn curves begin.

    Attributes:
        cut_distortion: Begin each curve at its point closest to this summed distortion.
        cut_rate: Begin each curve at its point closest to this rate in nats; 0 draws whole curves.
    """

    cut_distortion: float | None = None
    cut_rate: float = 0.1

    def check(self) -> None:
        """Check the numbers.

        Raises:
            InputError: A number is negative.
        """
        for name, value in (("distortion", self.cut_distortion), ("rate", self.cut_rate)):
            if value is not None and not value >= 0:
                raise InputError(f"--cut-{name} is {value:g}, but it must not be negative")

    def cut(self, curve: DrawnCurve) -> DrawnCurve:
        """The part of a curve that is drawn."""
        from gencomp.figures import rate_distortion

        return rate_distortion.cut(curve, self.cut_distortion, self.cut_rate)
