"""The code of an encoder: dithered quantization as a channel, and its gradient.

    shared    z = Q(f + u),  y = z − u      y − f is uniform on a cell and independent of f
    private   z = Q(f),      y = z + u
    none      z = Q(f),      y = z

Q is the nearest of L centres with the step Δ, and u is uniform on (−Δ/2, Δ/2). Since |f| < 1 lies
within the centres, |f + u| lies within Δ/2 of them: the quantizer never overloads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gencomp import quantizer
from gencomp.coding.dither import unit_dither
from gencomp.draws import Draws
from gencomp.systems.urdp.recipe import CodeSection, Dither, Gradient

# The dithers among which k shared bits choose are the same for every model.
_CODEBOOK_SEED = 0


@dataclass(frozen=True)
class Code:
    """The code of one encoder.

    Attributes:
        latents: the number d of latents.
        centres: the quantizer of every latent.
        dither: who knows the dither.
        shared_bits: the number k of shared bits that choose an image's dither, with 0 for no dither
            at all; None for a dither of its own for each image.
        gradient: the gradient of the quantizer in training.
    """

    latents: int
    centres: quantizer.Quantizer
    dither: Dither
    shared_bits: int | None
    gradient: Gradient

    @classmethod
    def of(cls, section: CodeSection) -> Code:
        """The code that a recipe states."""
        centres = quantizer.grid(
            section.levels, section.sharpness, "absolute", section.low, section.high
        )
        return cls(section.latents, centres, section.dither, section.shared_bits, section.gradient)

    @property
    def levels(self) -> int:
        """The number L of levels."""
        return self.centres.levels

    @property
    def nominal_bits(self) -> float:
        """The bits d·log2(L) of an image, as published; only those of a file are whole."""
        return self.latents * math.log2(self.levels)

    @property
    def step(self) -> float:
        """The distance Δ of neighbouring centres."""
        first, second = self.centres.centres[:2]
        return second - first

    @property
    def name(self) -> str:
        """All that decides which symbols an encoder sends and what they mean, as text."""
        first, last = self.centres.centres[0], self.centres.centres[-1]
        return (
            f"{self.latents} latents {self.levels} levels {first!r} {last!r} {self.dither}"
            f" {self.shared_bits}"
        )

    def random_units(self, draws: Draws, purpose: str) -> Tensor:
        """A random dither for each row of `draws` in units of the step, in [−½, ½), [B, K]."""
        if self.shared_bits is None:
            return draws.uniform(purpose, -0.5, 0.5, self.latents)
        numbers_B = draws.uniform(purpose, 0, 1 << self.shared_bits).long()
        codebook = torch.from_numpy(_codebook(self.shared_bits, self.latents))
        return codebook.to(numbers_B.device, torch.float32)[numbers_B]

    def keyed_units(self, seed: int, indices_B: Sequence[int]) -> npt.NDArray[np.float64]:
        """The dither of pictures in units of the step, [B, K], which only (seed, index) decide.

        Args:
            seed: the seed that sender and receiver share, 0..2^64 − 1.
            indices_B: the index of each picture, 0..2^64 − 1.
        """
        if self.shared_bits is None:
            return unit_dither(seed, indices_B, self.latents)
        mask = (1 << self.shared_bits) - 1
        first_words = unit_dither(seed, indices_B, latents=1)[:, 0]
        numbers = [int(word) & mask for word in words_of(first_words)]
        return _codebook(self.shared_bits, self.latents)[numbers]

    def every_word(self, count: int) -> npt.NDArray[np.uint64]:
        """The words of all dithers of an image, or of `count` of a continuum, uint64 [n, K].

        Args:
            count: the number of dithers that stand for all where each image has one of its own.
        """
        if self.dither == "shared" and self.shared_bits is not None:
            return words_of(_codebook(self.shared_bits, self.latents))
        even_B = (np.arange(count) + 0.5) * (2.0**32 / count)
        return np.tile(even_B.astype(np.uint64)[:, None], (1, self.latents))


@cache
def _codebook(bits: int, latents: int) -> npt.NDArray[np.float64]:
    """The dithers among which so many shared bits choose, [2^k, K]; without a bit it is 0."""
    if bits == 0:
        return np.zeros((1, latents))
    return unit_dither(_CODEBOOK_SEED, range(1 << bits), latents)


def words_of(units: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
    """The words w of a dither (w + ½)/2^32 − ½."""
    return ((units + 0.5) * 2.0**32).astype(np.uint64)


def received(f_BK: Tensor, unit_BK: Tensor, code: Code, training: bool) -> Tensor:
    """The decoder's input y for the encoder's output, [B, K], with the code's gradient.

    Args:
        f_BK: the latents in (−1, 1).
        unit_BK: the dither in units of the step, in [−½, ½).
        code: the code.
        training: whether noise may stand in place of quantization, as the code's gradient says.
    """
    u_BK = unit_BK.to(f_BK.dtype) * code.step
    if training and code.gradient == "noise":
        return f_BK - u_BK
    sent_BK = f_BK + u_BK if code.dither == "shared" else f_BK
    if code.gradient == "soft":
        z_BK = quantizer.quantize(sent_BK, code.centres)
    else:
        z_BK = sent_BK + (quantizer.quantize(sent_BK.detach(), code.centres) - sent_BK.detach())
    return from_centres(z_BK, u_BK, code)


def symbols(f_BK: Tensor, unit_BK: Tensor, code: Code) -> Tensor:
    """The symbols that the sender writes, int64 [B, K]; the arguments are those of `received`."""
    sent_BK = f_BK + unit_BK.to(f_BK.dtype) * code.step if code.dither == "shared" else f_BK
    return quantizer.quantize_hard(sent_BK, code.centres)


def from_symbols(symbols_BK: Tensor, unit_BK: Tensor, code: Code, dtype: torch.dtype) -> Tensor:
    """The decoder's input y for symbols that the receiver reads, [B, K]."""
    z_BK = quantizer.symbols_to_values(symbols_BK, code.centres, dtype=dtype)
    return from_centres(z_BK, unit_BK.to(dtype) * code.step, code)


def from_centres(z_BK: Tensor, u_BK: Tensor, code: Code) -> Tensor:
    """The decoder's input y for quantized latents z and the dither u."""
    match code.dither:
        case "shared":
            return z_BK - u_BK
        case "private":
            return z_BK + u_BK
        case "none":
            return z_BK
