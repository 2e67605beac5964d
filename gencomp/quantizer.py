"""A scalar quantizer with fixed centres and a soft gradient.

The forward pass gives the nearest centre, and for ties the lower one. The backward pass takes the
derivative of the soft value

    s(x) = Σ_l c_l w_l,   w = softmax_l(−σ (x − c_l)²)  or  softmax_l(−σ |x − c_l|)

For the squared distance it is ds/dx = 2σ Var_w(c) (Mentzer et al., CVPR 2018, without annealing;
Tschannen et al., NeurIPS 2018). For the absolute distance it is 0 beyond the outermost centres,
where all distances change by the same amount, and at a centre the derivative of |·| is taken as 0.
The symbols are the integers l, and only they go into a file.
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
    """The centres of a quantizer, and the softness of its gradient.

    Attributes:
        centres: the L values c_l in increasing order, at least 2.
        sharpness: the σ of the soft value; a larger σ makes it steeper.
        distance: the distance in the softmax.
        boundaries: the L − 1 values between the centres; a value goes to the lower of two centres
            if it is at most the boundary between them. The default is the middle.

    Raises:
        InputError: there are fewer than 2 centres, they do not increase, or the sharpness is not
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
        """The number of levels L."""
        return len(self.centres)


def cells(levels: int) -> Quantizer:
    """A quantizer with L equal cells of [−1, 1], whose centres are c_l = −1 + (2l + 1)/L."""
    _require_levels(levels)
    centres = tuple(-1 + (2 * level + 1) / levels for level in range(levels))
    edges = tuple(-1 + 2 * level / levels for level in range(1, levels))
    return Quantizer(centres, boundaries=edges)


def grid(
    levels: int,
    sharpness: float = 1.0,
    distance: Literal["squared", "absolute"] = "squared",
    low: float = -1.0,
    high: float = 1.0,
) -> Quantizer:
    """A quantizer with L equally spaced centres from `low` to `high` inclusive."""
    _require_levels(levels)
    centres = tuple(low + (high - low) * level / (levels - 1) for level in range(levels))
    return Quantizer(centres, sharpness, distance)


def half_cell(levels: int) -> float:
    """Half the width of a cell of `cells(levels)`, 1/L."""
    _require_levels(levels)
    return 1 / levels


def quantize(y: Tensor, quantizer: Quantizer) -> Tensor:
    """The nearest centre of every value, with the gradient of the soft value.

    Args:
        y: values of any shape; those beyond the outermost centres go to these centres.
        quantizer: the quantizer.

    Returns:
        The centres in the shape and type of `y`. They are bit-identical to
        `symbols_to_values(quantize_hard(y))`, since the soft value enters as soft − stop(soft),
        which is exactly 0. A NaN stays a NaN.
    """
    x = y.to(torch.promote_types(y.dtype, torch.float32))
    hard = _centres(quantizer, x.dtype, x.device)[_nearest(x.detach(), quantizer)]
    soft = soft_value(x, quantizer)
    return (hard + (soft - soft.detach())).to(y.dtype)


def soft_value(x: Tensor, quantizer: Quantizer) -> Tensor:
    """The soft value s(x) of every value, in the shape of `x`."""
    c_L = _centres(quantizer, x.dtype, x.device)
    if quantizer.distance == "squared":
        # This is −(x − c)² without −x², which the softmax cancels, so it is exact for any x.
        logits = quantizer.sharpness * (2 * x[..., None] * c_L - c_L.square())
    else:
        # The clamp makes s exactly constant, and its gradient exactly 0, beyond the outer centres.
        inner = x.clamp(quantizer.centres[0], quantizer.centres[-1])
        logits = -quantizer.sharpness * (inner[..., None] - c_L).abs()
    return (torch.softmax(logits, dim=-1) * c_L).sum(-1)


def quantize_hard(y: Tensor, quantizer: Quantizer) -> Tensor:
    """The symbol of the nearest centre of every value; for ties it is the lower centre's.

    Args:
        y: values of any shape, finite or infinite.
        quantizer: the quantizer.

    Returns:
        The int64 symbols in 0..L−1, in the shape of `y`.

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
        InputError: a symbol lies outside 0..L−1.
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
