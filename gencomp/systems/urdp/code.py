"""The code of an encoder: dithered quantization as a channel, and its gradient.

    shared    z = Q(f + u),  y = z − u      y − f is uniform on a cell and independent of f
    private   z = Q(f),      y = z + u
    none      z = Q(f),      y = z

Q is the nearest of L centres with the step Δ, and u is uniform on (−Δ/2, Δ/2). Since |f| < 1 lies
within the centres, |f + u| lies within Δ/2 of them: the quantizer never overloads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gencomp import quantizer
from gencomp.systems.urdp.recipe import CodeSection, Dither, Gradient


@dataclass(frozen=True)
class Code:
    """The code of one encoder.

    Attributes:
        latents: the number d of latents.
        centres: the quantizer of every latent.
        dither: who knows the dither.
        gradient: the gradient of the quantizer in training.
    """

    latents: int
    centres: quantizer.Quantizer
    dither: Dither
    gradient: Gradient

    @classmethod
    def of(cls, section: CodeSection) -> Code:
        """The code that a recipe states."""
        centres = quantizer.grid(
            section.levels, section.sharpness, "absolute", section.low, section.high
        )
        return cls(section.latents, centres, section.dither, section.gradient)

    @property
    def levels(self) -> int:
        """The number L of levels."""
        return self.centres.levels

    @property
    def step(self) -> float:
        """The distance Δ of neighbouring centres."""
        first, second = self.centres.centres[:2]
        return second - first

    @property
    def name(self) -> str:
        """All that decides which symbols an encoder sends and what they mean, as text."""
        first, last = self.centres.centres[0], self.centres.centres[-1]
        return f"{self.latents} latents {self.levels} levels {first!r} {last!r} {self.dither}"


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
