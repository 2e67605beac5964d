"""Scalar quantiser with fixed levels and a soft gradient.

The L levels are the mid-points of L equal cells of [−1, 1], c_l = −1 + (2l + 1)/L. Forward is the
nearest level; backward is the derivative of the soft assignment

    y(x) = Σ_l c_l w_l,   w = softmax_l(−σ (x − c_l)²),   dy/dx = 2σ Var_w(c),   σ = 1

(Tschannen et al., NeurIPS 2018, after Mentzer et al., CVPR 2018, without annealing). Symbols are
the integers l; only they go into a file.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gencomp.errors import InputError

_SHARPNESS = 1.0


def level_values(
    levels: int,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Tensor:
    """The L level values c_l in increasing order, [L]."""
    _require_levels(levels)
    index_L = torch.arange(levels, dtype=torch.float64, device=device)
    return (-1 + (2 * index_L + 1) / levels).to(dtype)


def half_cell(levels: int) -> float:
    """Half the width of a quantiser cell, 1/L."""
    _require_levels(levels)
    return 1 / levels


def quantize(y: Tensor, levels: int) -> Tensor:
    """The nearest level of every value, with the gradient of the soft assignment.

    Args:
        y: any shape. Values outside [−1, 1] go to the outermost levels.
        levels: number of levels L.

    Returns:
        Level values in the shape and type of `y`, bit-identical to
        `symbols_to_values(quantize_hard(y))`: the soft value enters as soft − stop(soft), which is
        exactly 0. A NaN stays a NaN.
    """
    x = y.to(torch.promote_types(y.dtype, torch.float32))
    c_L = level_values(levels, dtype=x.dtype, device=x.device)
    hard = c_L[_nearest(x.detach(), levels)]
    # −(x − c)² without −x², which the softmax cancels: exact also far outside [−1, 1].
    w = torch.softmax(_SHARPNESS * (2 * x[..., None] * c_L - c_L.square()), dim=-1)
    soft = (w * c_L).sum(-1)
    return (hard + (soft - soft.detach())).to(y.dtype)


def quantize_hard(y: Tensor, levels: int) -> Tensor:
    """The symbol of the nearest level, ties to the lower level.

    Args:
        y: any shape, finite or infinite values.
        levels: number of levels L.

    Returns:
        int64 symbols in 0..L−1, in the shape of `y`.

    Raises:
        InputError: `y` holds a NaN.
    """
    if torch.isnan(y).any():
        raise InputError("The quantiser got a NaN: the encoder's weights or its input are broken.")
    return _nearest(y.detach().to(torch.promote_types(y.dtype, torch.float32)), levels)


def symbols_to_values(
    symbols: Tensor, levels: int, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Level values of integer symbols, in the shape of `symbols`.

    Raises:
        InputError: a symbol outside 0..L−1.
    """
    _require_levels(levels)
    if symbols.numel() and not 0 <= int(symbols.min()) <= int(symbols.max()) < levels:
        raise InputError(
            f"Symbols run from {int(symbols.min())} to {int(symbols.max())}, allowed are 0 to "
            f"{levels - 1}."
        )
    return level_values(levels, dtype=dtype, device=symbols.device)[symbols.long()]


def values_to_symbols(values: Tensor, levels: int) -> Tensor:
    """Symbols of values that are levels already, up to rounding; the inverse of the above.

    Raises:
        InputError: a value that is further than a hundredth of a cell from every level.
    """
    symbols = quantize_hard(values, levels)
    away = (values.double() - symbols_to_values(symbols, levels, dtype=torch.float64)).abs()
    if away.numel() and float(away.max()) > 0.02 * half_cell(levels):
        raise InputError(f"Values are not levels of a quantiser with {levels} levels.")
    return symbols


def _nearest(x: Tensor, levels: int) -> Tensor:
    _require_levels(levels)
    inner = torch.arange(1, levels, dtype=torch.float64, device=x.device)
    boundaries = (-1 + 2 * inner / levels).to(x.dtype)
    # right=False puts a value on a boundary into the cell below it.
    return torch.bucketize(x.contiguous(), boundaries, right=False)


def _require_levels(levels: int) -> None:
    if levels < 2:
        raise InputError(f"A quantiser needs at least 2 levels, not {levels}.")
