"""The code of generative compression: centres, the learnt prior of symbols, and integer tables."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencomp.coding.tables import Integers, frequencies
from gencomp.quantizer import (
    Quantizer,
    nearest_symbols,
    quantize,
    quantize_hard,
    soft_assignments,
    symbols_to_values,
)
from gencomp.systems.common.code_tables import CodeTables
from gencomp.systems.gan_compression.recipe import CodeSection

_NATS_TO_BITS = 1.4426950408889634


class Code(nn.Module):
    """The quantizer of C channels of latents, the prior of its symbols, and their tables.

    Args:
        settings: the section of the recipe.
        prior: whether a prior of the symbols is learnt, for an entropy term in training.

    Attributes:
        tables: the statistics of the C symbols of one place of the latents; empty before `count`.
    """

    def __init__(self, settings: CodeSection, prior: bool = False) -> None:
        super().__init__()
        levels = settings.levels
        centres = tuple(level - (levels - 1) / 2 for level in range(levels))
        self.settings = settings
        self.quantizer = Quantizer(
            centres, settings.sharpness, settings.distance, gradient=settings.gradient
        )
        learnt = settings.centres == "learnt"
        self.centres_L = nn.Parameter(torch.tensor(centres)) if learnt else None
        shape = (settings.channels, levels)
        self.logits_CL = nn.Parameter(torch.zeros(shape)) if prior else None
        self.tables = CodeTables(*shape)

    def forward(self, w_BCHW: Tensor) -> Tensor:
        """The centres of latents, with the quantizer's gradient."""
        return quantize(w_BCHW, self.quantizer, self._learnt())

    def symbols(self, w_BCHW: Tensor) -> Tensor:
        """The symbols of latents, int64 of 0..L−1.

        Raises:
            InputError: a latent is a NaN.
        """
        return quantize_hard(w_BCHW, self.quantizer, self._learnt())

    def nearest(self, w_BCHW: Tensor) -> Tensor:
        """The symbols of latents in training, where a look for NaNs would wait for a GPU."""
        return nearest_symbols(w_BCHW, self.quantizer, self._learnt())

    def values(self, symbols_BCHW: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The centres of symbols."""
        centres_L = self._learnt()
        return symbols_to_values(symbols_BCHW, self.quantizer, dtype=dtype, centres_L=centres_L)

    def bits_BCHW(self, w_BCHW: Tensor) -> Tensor:
        """The bits of each symbol under the learnt prior.

        Latents get the gradient of the mean over the soft assignments, and the prior that of the
        bits themselves.
        """
        assert self.logits_CL is not None
        w_BHWC = w_BCHW.permute(0, 2, 3, 1).to(torch.promote_types(w_BCHW.dtype, torch.float32))
        soft_BHWCL = soft_assignments(w_BHWC, self.quantizer, self._learnt())
        hard_BHWC = self.nearest(w_BHWC)
        hard_BHWCL = F.one_hot(hard_BHWC, self.settings.levels)
        assigned_BHWCL = soft_BHWCL + (hard_BHWCL - soft_BHWCL).detach()
        bits_CL = -_NATS_TO_BITS * F.log_softmax(self.logits_CL, 1)
        return (assigned_BHWCL * bits_CL).sum(-1).permute(0, 3, 1, 2)

    def centre_penalty(self) -> Tensor | None:
        """The weighted sum of squares of learnt centres; None for fixed ones."""
        if self.centres_L is None:
            return None
        return self.settings.centre_penalty * self.centres_L.square().sum()

    def level_counts_BCL(self, symbols_BCHW: Tensor, kept_B1HW: Tensor | None = None) -> Tensor:
        """How often each level occurs in each channel of an image, float32.

        Args:
            symbols_BCHW: the symbols.
            kept_B1HW: the places that count, as 0 and 1; by default all do.
        """
        levels = torch.arange(self.settings.levels, device=symbols_BCHW.device)
        is_level = symbols_BCHW[..., None] == levels
        if kept_B1HW is not None:
            is_level = is_level & (kept_B1HW[..., None] > 0)
        return is_level.sum((2, 3)).float()

    @torch.no_grad()
    def count(self, batches: Iterable[Tensor]) -> None:
        """Count the symbols of training images, for the tables.

        Args:
            batches: this rank's latents of each global batch, [n, C, H, W]; every rank makes the
                same tables.
        """
        self.tables.count(self.symbols(w_BCHW).permute(0, 2, 3, 1) for w_BCHW in batches)

    @property
    def counts_CL(self) -> Tensor:
        """How often each level occurred in each channel in training images, int64."""
        return self.tables.counts.sum(1)

    def frequencies(self) -> Integers:
        """The frequency of each level in each channel, [C, L]; rows sum to 2^PRECISION."""
        return frequencies(self.counts_CL.cpu().numpy())

    def _learnt(self) -> Tensor | None:
        """The learnt centres in increasing order, which a step may have changed; None if fixed."""
        return None if self.centres_L is None else self.centres_L.sort().values


def entropy_bits(counts_CL: Tensor) -> Tensor:
    """The bits of all symbols at the entropy of each channel's levels, one scalar."""
    counts_CL = counts_CL.double()
    total_C1 = counts_CL.sum(1, keepdim=True)
    shares_CL = counts_CL / total_C1.clamp_min(torch.finfo(torch.float64).tiny)
    return -torch.special.xlogy(counts_CL, shares_CL).sum() * _NATS_TO_BITS
