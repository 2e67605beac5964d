"""A scalar quantizer with fixed or learnt centres, and a gradient where the true one is 0.

The forward pass gives the nearest centre, and for ties the lower one. The backward pass with the
soft gradient takes the derivative of the soft value

    s(x) = Σ_l c_l w_l,   w = softmax_l(−σ (x − c_l)²)  or  softmax_l(−σ |x − c_l|)

For the squared distance it is ds/dx = 2σ Var_w(c) (Mentzer et al., CVPR 2018, without annealing;
Tschannen et al., NeurIPS 2018). For the absolute distance it is 0 beyond the outermost centres,
where all distances change by the same amount, and at a centre the derivative of |·| is taken as 0.

The inward gradient is 1 between the outermost centres. Beyond them it is 1 where a step against the
loss's gradient leads back inside and 0 where it leads further out, so no value is lost for good,
and none runs away.

The symbols are the integers l, and only they go into a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gencomp.errors import InputError

Distance = Literal["squared", "absolute"]


@dataclass(frozen=True)
class Quantizer:
    """The centres of a quantizer, and the softness of its gradient.

    Attributes:
        centres: the L values c_l in increasing order, at least 2.
        sharpness: the σ of the soft value; a larger σ makes it steeper.
        distance: the distance in the softmax.
        boundaries: the L − 1 values between the centres; a value goes to the lower of two centres
            if it is at most the boundary between them. The default is the middle.
        gradient: the gradient of `quantize`.

    Raises:
        InputError: there are fewer than 2 centres, they do not increase, or the sharpness is not
            positive.
    """

    centres: tuple[float, ...]
    sharpness: float = 1.0
    distance: Distance = "squared"
    boundaries: tuple[float, ...] = ()
    gradient: Literal["soft", "inward"] = "soft"

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
    distance: Distance = "squared",
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


def quantize(y: Tensor, quantizer: Quantizer, centres_L: Tensor | None = None) -> Tensor:
    """The nearest centre of every value, with the quantizer's gradient.

    Args:
        y: values of any shape; those beyond the outermost centres go to these centres.
        quantizer: the quantizer.
        centres_L: learnt centres in increasing order, which replace those of the quantizer. They
            get the gradient of the soft value, or with the inward gradient that of the centre that
            was chosen.

    Returns:
        The centres in the shape and type of `y`. They are bit-identical to
        `symbols_to_values(quantize_hard(y))`, since the soft value enters as soft − stop(soft),
        which is exactly 0. A NaN stays a NaN.
    """
    x = y.to(torch.promote_types(y.dtype, torch.float32))
    c_L = _centres(quantizer, x.dtype, x.device, centres_L)
    hard = c_L[_nearest(x.detach(), quantizer, centres_L)]
    if quantizer.gradient == "inward":
        ends = c_L.detach()
        return (hard + _Inward.apply(x, ends[0], ends[-1])).to(y.dtype)
    soft = soft_value(x, quantizer, centres_L)
    return (hard.detach() + (soft - soft.detach())).to(y.dtype)


def soft_value(x: Tensor, quantizer: Quantizer, centres_L: Tensor | None = None) -> Tensor:
    """The soft value s(x) of every value, in the shape of `x`."""
    c_L = _centres(quantizer, x.dtype, x.device, centres_L)
    return (soft_assignments(x, quantizer, centres_L) * c_L).sum(-1)


def soft_assignments(x: Tensor, quantizer: Quantizer, centres_L: Tensor | None = None) -> Tensor:
    """The weights w of the centres in the soft value of every value, [*x.shape, L]."""
    c_L = _centres(quantizer, x.dtype, x.device, centres_L)
    if quantizer.distance == "squared":
        # This is −(x − c)² without −x², which the softmax cancels, so it is exact for any x.
        logits = quantizer.sharpness * (2 * x[..., None] * c_L - c_L.square())
    else:
        # The clamp makes s exactly constant, and its gradient exactly 0, beyond the outer centres.
        inner = x.clamp(c_L[0].detach(), c_L[-1].detach())
        logits = -quantizer.sharpness * (inner[..., None] - c_L).abs()
    return torch.softmax(logits, dim=-1)


def quantize_hard(y: Tensor, quantizer: Quantizer, centres_L: Tensor | None = None) -> Tensor:
    """The symbol of the nearest centre of every value; for ties it is the lower centre's.

    Args:
        y: values of any shape, finite or infinite.
        quantizer: the quantizer.
        centres_L: learnt centres, as in `quantize`.

    Returns:
        The int64 symbols in 0..L−1, in the shape of `y`.

    Raises:
        InputError: `y` holds a NaN.
    """
    if torch.isnan(y).any():
        raise InputError("The quantizer got a NaN: the encoder's weights or its input are broken.")
    return nearest_symbols(y, quantizer, centres_L)


def nearest_symbols(y: Tensor, quantizer: Quantizer, centres_L: Tensor | None = None) -> Tensor:
    """What `quantize_hard` gives, without its look for NaNs, whose symbols mean nothing.

    Nothing here waits for a GPU.
    """
    x = y.detach().to(torch.promote_types(y.dtype, torch.float32))
    return _nearest(x, quantizer, centres_L)


def symbols_to_values(
    symbols: Tensor,
    quantizer: Quantizer,
    *,
    dtype: torch.dtype = torch.float32,
    centres_L: Tensor | None = None,
) -> Tensor:
    """The centres of integer symbols, in the shape of `symbols`.

    Args:
        symbols: integers of 0..L−1.
        quantizer: the quantizer.
        dtype: the type of the centres.
        centres_L: learnt centres, as in `quantize`.

    Raises:
        InputError: a symbol lies outside 0..L−1.
    """
    if symbols.numel() and not 0 <= int(symbols.min()) <= int(symbols.max()) < quantizer.levels:
        raise InputError(
            f"Symbols run from {int(symbols.min())} to {int(symbols.max())}, allowed are 0 to "
            f"{quantizer.levels - 1}."
        )
    return _centres(quantizer, dtype, symbols.device, centres_L)[symbols.long()]


class _Inward(torch.autograd.Function):
    """Zeros, or NaN for a NaN; the gradient is 1, but 0 for steps away from [low, high]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        ctx.save_for_backward(x < low, x > high)
        return torch.where(x.isnan(), x, torch.zeros_like(x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        below, above = ctx.saved_tensors
        outward = (below & (grad > 0)) | (above & (grad < 0))
        return grad.masked_fill(outward, 0), None, None


def _nearest(x: Tensor, quantizer: Quantizer, centres_L: Tensor | None = None) -> Tensor:
    if centres_L is None:
        boundaries = _constants(tuple(quantizer.boundaries), x.dtype, x.device)
    else:
        c_L = centres_L.detach().double()
        boundaries = ((c_L[:-1] + c_L[1:]) / 2).to(x.device, x.dtype)
    # right=False puts a value on a boundary into the cell below it.
    return torch.bucketize(x.contiguous(), boundaries, right=False)


def _centres(
    quantizer: Quantizer,
    dtype: torch.dtype,
    device: torch.device,
    centres_L: Tensor | None = None,
) -> Tensor:
    if centres_L is not None:
        return centres_L.to(device, dtype)
    return _constants(tuple(quantizer.centres), dtype, device)


@lru_cache(maxsize=64)
def _constants(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers as a tensor; each copy from the host would make a step wait for the device."""
    with torch.inference_mode(False):  # otherwise training could not use what an evaluation made
        return torch.tensor(values, dtype=torch.float64).to(device, dtype)


def _require_levels(levels: int) -> None:
    if levels < 2:
        raise InputError(f"A quantizer needs at least 2 levels, not {levels}.")
