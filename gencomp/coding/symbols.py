"""What a code says of its symbols; imports nothing heavy, since reports show it too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class LayerSymbols(NamedTuple):
    """The symbols of one layer of a code.

    Attributes:
        levels: the number L of levels of a symbol.
        bits_K: the entropy of the symbol of each latent in bits, given what sender and receiver
            share.
    """

    levels: int
    bits_K: Sequence[float]

    @property
    def bits(self) -> float:
        """The entropies of all latents together, in bits; latents that depend on each other cost
        no less."""
        return math.fsum(self.bits_K)

    @property
    def fixed_bits(self) -> float:
        """The bits of all latents at log2 L each."""
        return len(self.bits_K) * math.log2(self.levels)
