"""Scalar quantizer with fixed centres and a soft gradient.

Forward is the nearest centre, ties to the lower one; backward is the derivative of the soft value

    s(x) = Σ_l c_l w_l,   w = softmax_l(−σ (x − c_l)²)  or  softmax_l(−σ |x − c_l|)

with its derivative ds/dx = 2σ Var_w(c) for the squared distance (Mentzer et al., CVPR 2018, without
annealing; Tschannen et al., NeurIPS 2018). With the absolute distance it is 0 beyond the outermost
centres, where all distances change alike, and at a centre the derivative of |·| is taken for 0.
Symbols are the integers l; only they go into a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from gencomp.errors import InputError


@dataclass(frozen=True)
class Quantizer:
    """Centres, and how soft the gradient is.

    Attributes:
        centres: L values c_l in increasing order, at least 2.
        sharpness: σ of the soft value, larger for a steeper one.
        distance: whose softmax it is.
        boundaries: the L − 1 values between the centres up to which a value goes to the lower one;
            by default half way.

    Raises:
        InputError: fewer than 2 centres, or not in increasing order; a sharpness that is not
            positive.
    """

    centres: tuple[float, ...]
    sharpness: float = 1.0
    distance: Literal["squared", "absolute"] = "squared"
    boundaries: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _require_levels(len(self.centres))
        if not all(a < b for a, b in pairwise(self.centres)):
            raise InputError(f"A quantizer's centres must increase, not run {self.centres}.")
        if not self.sharpness > 0:
            raise InputError(f"A quantizer's sharpness must be positive, not {self.sharpness}.")
        if not self.boundaries:
            middles = tuple((a + b) / 2 for a, b in pairwise(self.centres))
            object.__setattr__(self, "boundaries", middles)

    @property
    def levels(self) -> int:
        """L."""
        return len(self.centres)


def cells(levels: int) -> Quantizer:
    """The mid-points of L equal cells of [−1, 1], c_l = −1 + (2l + 1)/L, and the cells' edges."""
    _require_levels(levels)
    centres = tuple(-1 + (2 * level + 1) / levels for level in range(levels))
    edges = tuple(-1 + 2 * level / levels for level in range(1, levels))
    return Quantizer(centres, boundaries=edges)


def grid(
    levels: int,
    sharpness: float = 1.0,
    distance: Literal["squared", "absolute"] = "squared",
) -> Quantizer:
    """L centres from −1 to 1, both of them included, in equal steps: c_l = −1 + 2l/(L − 1)."""
    _require_levels(levels)
    centres = tuple(-1 + 2 * level / (levels - 1) for level in range(levels))
    return Quantizer(centres, sharpness, distance)


def half_cell(levels: int) -> float:
    """Half the width of one of `cells`, 1/L."""
    _require_levels(levels)
    return 1 / levels


def quantize(y: Tensor, quantizer: Quantizer) -> Tensor:
    """The nearest centre of every value, with the gradient of the soft value.

    Args:
        y: any shape. Values beyond the outermost centres go to these.
        quantizer: the centres.

    Returns:
        Centres in the shape and type of `y`, bit-identical to
        `symbols_to_values(quantize_hard(y))`: the soft value enters as soft − stop(soft), which is
        exactly 0. A NaN stays a NaN.
    """
    x = y.to(torch.promote_types(y.dtype, torch.float32))
    hard = _centres(quantizer, x.dtype, x.device)[_nearest(x.detach(), quantizer)]
    soft = soft_value(x, quantizer)
    return (hard + (soft - soft.detach())).to(y.dtype)


def soft_value(x: Tensor, quantizer: Quantizer) -> Tensor:
    """The soft value s(x) of every value, in its shape."""
    c_L = _centres(quantizer, x.dtype, x.device)
    if quantizer.distance == "squared":
        # −(x − c)² without −x², which the softmax cancels: exact also far outside the centres.
        logits = quantizer.sharpness * (2 * x[..., None] * c_L - c_L.square())
    else:
        # Beyond the outermost centres s is constant: exactly, as its gradient is exactly 0.
        inner = x.clamp(quantizer.centres[0], quantizer.centres[-1])
        logits = -quantizer.sharpness * (inner[..., None] - c_L).abs()
    return (torch.softmax(logits, dim=-1) * c_L).sum(-1)


def quantize_hard(y: Tensor, quantizer: Quantizer) -> Tensor:
    """The symbol of the nearest centre, ties to the lower one.

    Args:
        y: any shape, finite or infinite values.
        quantizer: the centres.

    Returns:
        int64 symbols in 0..L−1, in the shape of `y`.

    Raises:
        InputError: `y` holds a NaN.
    """
    if torch.isnan(y).any():
        raise InputError("The quantizer got a NaN: the encoder's weights or its input are broken.")
    return _nearest(y.detach().to(torch.promote_types(y.dtype, torch.float32)), quantizer)


def symbols_to_values(
    symbols: Tensor, quantizer: Quantizer, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The centres of integer symbols, in the shape of `symbols`.

    Raises:
        InputError: a symbol outside 0..L−1.
    """
    if symbols.numel() and not 0 <= int(symbols.min()) <= int(symbols.max()) < quantizer.levels:
        raise InputError(
            f"Symbols run from {int(symbols.min())} to {int(symbols.max())}, allowed are 0 to "
            f"{quantizer.levels - 1}."
        )
    return _centres(quantizer, dtype, symbols.device)[symbols.long()]


def _nearest(x: Tensor, quantizer: Quantizer) -> Tensor:
    boundaries = torch.tensor(quantizer.boundaries, dtype=torch.float64).to(x.device, x.dtype)
    # right=False puts a value on a boundary into the cell below it.
    return torch.bucketize(x.contiguous(), boundaries, right=False)


def _centres(quantizer: Quantizer, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(quantizer.centres, dtype=torch.float64).to(device, dtype)


def _require_levels(levels: int) -> None:
    if levels < 2:
        raise InputError(f"A quantizer needs at least 2 levels, not {levels}.")
