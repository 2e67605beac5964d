"""What the two sides of relative entropy coding share: settings, keys, and the code of a block."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from gencomp.coding.tables import Integers
from gencomp.errors import InputError

Effort = Literal["fast", "balanced", "best"]

MAX_CANDIDATES = 1 << 16
MAX_PIECES = 1 << 14


class Settings(NamedTuple):
    """How a sender searches; the receiver does not need them.

    A block of relative entropy R nats is coded in about R/Ω pieces by indices of ln n = Ω (1 + ε)
    nats each. The coded value has the log ratio of a sample of the target, ln q/p ≈ R, if the
    oversampling ε makes up for what a search of B beams misses.

    Attributes:
        omega: Ω, the relative entropy of a piece in nats, above 0.
        oversampling: ε.
        beams: B, the number of partial sums that are kept after each piece.
    """

    omega: float
    oversampling: float
    beams: int

    @property
    def candidates(self) -> int:
        """The number n of candidates of a piece, ⌊e^(Ω (1 + ε))⌋."""
        return int(math.exp(self.omega * (1 + self.oversampling)))

    def check(self) -> None:
        """Refuse settings with which nothing can be coded.

        Raises:
            InputError: the settings do not give 2 to 65,536 candidates, or have no beam.
        """
        nats = self.omega * (1 + self.oversampling)
        if not (self.omega > 0 and math.log(2) <= nats < math.log(MAX_CANDIDATES + 1)):
            raise InputError(
                f"Pieces of {self.omega:g} nats with oversampling {self.oversampling:g} take"
                f" e^{nats:g} candidates, allowed are 2 to {MAX_CANDIDATES}."
            )
        if self.beams < 1:
            raise InputError(f"A search keeps at least 1 beam, not {self.beams}.")

    def pieces(self, nats: float) -> int:
        """The number of pieces of a block of so many nats.

        It is rounded to the nearest, not upwards: blocks then have Ω/4 nats too many or too few on
        average, which cancel, where rounding upwards costs Ω/2 nats a block.
        """
        return round(min(nats / self.omega, MAX_PIECES + 1))


# About the ε that reaches 0.98 of the log ratio of samples for targets like those of a model: see
# benchmarks/README.md. The numbers of candidates are part of the format (`stream`).
EFFORTS: dict[Effort, Settings] = {
    "fast": Settings(omega=6.2, oversampling=0.12, beams=12),
    "balanced": Settings(omega=7.53, oversampling=0.094, beams=32),
    "best": Settings(omega=8.99, oversampling=0.08, beams=60),
}


class Key(NamedTuple):
    """What the candidates of a layer of latents are made from, beside the number of the block.

    Attributes:
        seed: the seed that sender and receiver share, 0..2^64 − 1.
        picture: the number of the picture, 0..2^64 − 1.
        layer: the number of the layer, 0..2^32 − 1.
    """

    seed: int = 0
    picture: int = 0
    layer: int = 0

    def check(self) -> None:
        """Refuse numbers out of range.

        Raises:
            InputError: a number is out of range.
        """
        for name, value, bits in zip(self._fields, self, (64, 64, 32), strict=True):
            if not 0 <= value < 1 << bits:
                raise InputError(f"The {name} of a key is 0 to 2^{bits} − 1, not {value}.")


class BlockCode(NamedTuple):
    """What is sent of a block.

    Attributes:
        schedule: the number of the schedule (`schedules`); 0 for a block without pieces.
        candidates: the number n of candidates of each piece.
        indices: the chosen candidate of each piece, 0..n−1, int64 [K]; without pieces, the value of
            all latents is their prior mean.
    """

    schedule: int
    candidates: int
    indices: Integers
