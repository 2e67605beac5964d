"""The integer tables from which both sides compute the probability of a symbol given the dither.

The latent f of training images is counted on a fine grid of cells. Given the dither u, the symbol s
is sent for the f between two bounds that u moves, so its probability is a difference of the
distribution function of f:

    t = (f − low)/Δ ∈ [0, L − 1],   s = ⌊t + u + ½⌋,   P(s | u) = F(s + ½ − u) − F(s − ½ − u)

The dither is a word w of 32 bits, u = (w + ½)/2^32 − ½, and F is a table of integers with linear
interpolation, so everything is computed in integers and is the same on every machine. The true
cost of the symbols is H(S | U), below the entropy of symbols without dither for most latents.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gencomp.coding.tables import PRECISION, Integers
from gencomp.errors import InputError
from gencomp.systems.urdp.code import Code

# The grid has so many cells for each step of the quantizer.
CELLS = 64
_WORD_BITS = 32
# Linear interpolation inside a cell takes so many bits of the dither.
_FRACTION_BITS = 16
# So many dithers, evenly spaced over a step, stand for all of them in a mean.
_DITHERS = 8 * CELLS
# So many frequencies are made at a time, which keeps memory small.
_FREQUENCIES_AT_ONCE = 1 << 22


class LatentTables(nn.Module):
    """The distribution functions of the latents, as integers.

    Args:
        code: the code of the encoder.

    Attributes:
        cumulative_KG: F at the G borders of the grid's cells, int64 [K, G] from 0 to 2^PRECISION −
            L; before `count` that of a uniform latent.
    """

    cumulative_KG: Tensor

    def __init__(self, code: Code) -> None:
        super().__init__()
        self._code = code
        cells = CELLS * (code.levels - 1)
        even_KG = np.ones((code.latents, cells))
        self.register_buffer("cumulative_KG", torch.from_numpy(_cumulative(even_KG, code.levels)))

    def count(self, batches: Iterable[Tensor]) -> None:
        """Count the latents of images.

        Args:
            batches: the encoder's outputs, [B, K].
        """
        low, step = self._code.centres.centres[0], self._code.step
        cells = self.cumulative_KG.shape[1] - 1
        counts_KG = np.zeros((self._code.latents, cells))
        for f_BK in batches:
            t_BK = (f_BK.double().cpu().numpy() - low) / step
            places_BK = np.clip(np.floor(t_BK * CELLS).astype(np.int64), 0, cells - 1)
            for latent, places_B in enumerate(places_BK.T):
                counts_KG[latent] += np.bincount(places_B, minlength=cells)
        found = torch.from_numpy(_cumulative(counts_KG, self._code.levels))
        self.cumulative_KG.copy_(found)

    def require_sound(self) -> None:
        """Raise `InputError` unless each row is a distribution function, as a coder needs it."""
        table_KG = self.cumulative_KG.cpu().numpy()
        total = (1 << PRECISION) - self._code.levels
        ends = (table_KG[:, 0] == 0).all() and (table_KG[:, -1] == total).all()
        if not ends or (np.diff(table_KG, axis=1) < 0).any():
            raise InputError("The tables of the latents are no distribution functions.")

    def entropies(self) -> npt.NDArray[np.float64]:
        """The entropy H(S | U) in bits of the symbol of each latent given the dither, [K]."""
        words_BK = self._code.every_word(_DITHERS)
        rows = max(1, _FREQUENCIES_AT_ONCE // (self._code.latents * self._code.levels))
        bits_K = np.zeros(self._code.latents)
        for first in range(0, len(words_BK), rows):
            some_BK = words_BK[first : first + rows]
            shares_BKL = self.frequencies(some_BK).reshape(*some_BK.shape, -1) / 2.0**PRECISION
            bits_K -= (shares_BKL * np.log2(shares_BKL)).sum((0, 2))
        return bits_K / len(words_BK)

    def frequencies(self, words_BK: npt.NDArray[np.uint64]) -> Integers:
        """The frequencies of the symbols given the dither, [B·K, L]; each row sums to 2^PRECISION.

        Args:
            words_BK: the words of the dither, below 2^32; all 0 for a code without shared dither.
        """
        table_KG = self.cumulative_KG.cpu().numpy()
        return frequencies(table_KG, words_BK, self._code.levels, self._code.dither == "shared")


def frequencies(
    table_KG: Integers, words_BK: npt.NDArray[np.uint64], levels: int, shared: bool
) -> Integers:
    """See `LatentTables.frequencies`; without shared dither u is 0."""
    count, latents = words_BK.shape
    # The bound between s and s + 1 lies at t = s + ½ − u = s + 1 − (w + ½)/2^32, in words rounded
    # up, which moves it by less than the dither's resolution.
    words = words_BK.astype(np.int64) if shared else np.full(words_BK.shape, 1 << (_WORD_BITS - 1))
    inside_BK = (1 << _WORD_BITS) - words
    at_BK = inside_BK * CELLS
    cell_BK, rest_BK = at_BK >> _WORD_BITS, at_BK & ((1 << _WORD_BITS) - 1)
    fraction_BK = rest_BK >> (_WORD_BITS - _FRACTION_BITS)
    bounds = np.empty((count, latents, levels + 1), np.int64)
    bounds[..., 0], bounds[..., levels] = 0, table_KG[:, -1]
    k = np.arange(latents)
    for symbol in range(levels - 1):
        place_BK = cell_BK + symbol * CELLS
        lower_BK = table_KG[k, place_BK]
        upper_BK = table_KG[k, np.minimum(place_BK + 1, table_KG.shape[1] - 1)]
        bounds[..., symbol + 1] = lower_BK + ((upper_BK - lower_BK) * fraction_BK >> _FRACTION_BITS)
    # Each symbol keeps a frequency of 1, since rounding may send one that was never counted.
    return (np.diff(bounds, axis=2) + 1).reshape(-1, levels)


def _cumulative(counts_KG: npt.NDArray[np.float64], levels: int) -> Integers:
    """The distribution functions, int64 [K, G + 1], from counts in G cells."""
    total = (1 << PRECISION) - levels
    sums_KG = np.cumsum(counts_KG, axis=1)
    scaled_KG = np.floor(sums_KG / sums_KG[:, -1:] * total).astype(np.int64)
    scaled_KG[:, -1] = total
    return np.pad(scaled_KG, ((0, 0), (1, 0)))
