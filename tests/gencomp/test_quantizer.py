"""The quantiser: published values and gradients, ties, symbols."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gencomp.errors import InputError
from gencomp.quantizer import (
    half_cell,
    level_values,
    quantize,
    quantize_hard,
    symbols_to_values,
    values_to_symbols,
)

INPUTS = [-3, -1, -0.2, -1e-6, 0, 1e-6, 0.2, 1, 3]


def with_gradient(values: list[float], levels: int) -> tuple[list[float], list[float]]:
    y = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    out = quantize(y, levels)
    out.sum().backward()
    assert y.grad is not None
    return out.tolist(), y.grad.tolist()


def test_two_levels() -> None:
    values, gradients = with_gradient(INPUTS, 2)
    assert values == [-0.5] * 5 + [0.5] * 4
    half = [0.0049330186, 0.2099871708, 0.4805214914, 0.5]
    assert gradients == pytest.approx(half + [0.5] + half[::-1], rel=1e-8)


def test_two_levels_closed_form() -> None:
    """For L = 2 the soft value is tanh(x)/2, its derivative sech²(x)/2."""
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)
    _, gradients = with_gradient(x.tolist(), 2)
    assert gradients == pytest.approx((0.5 / torch.cosh(x) ** 2).tolist(), rel=1e-12)


def test_four_levels() -> None:
    values, gradients = with_gradient(INPUTS, 4)
    assert values == [-0.75, -0.75, -0.25, -0.25, -0.25, 0.25, 0.25, 0.75, 0.75]
    assert gradients[4] == pytest.approx(0.5025406, rel=1e-6)
    assert [gradients[1], gradients[7]] == pytest.approx([0.3134435] * 2, rel=1e-6)
    assert [gradients[0], gradients[8]] == pytest.approx([0.0423375] * 2, rel=1e-5)


def test_levels_are_cell_mid_points() -> None:
    assert level_values(2).tolist() == [-0.5, 0.5]
    assert level_values(3).tolist() == pytest.approx([-2 / 3, 0, 2 / 3], abs=1e-15)
    assert level_values(4).tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert half_cell(2) == 0.5


def test_ties_go_to_the_lower_level() -> None:
    y = torch.tensor([-0.5, 0.0, 0.5])
    assert quantize_hard(y, 4).tolist() == [0, 1, 2]
    assert quantize_hard(torch.nextafter(y, y + 1), 4).tolist() == [1, 2, 3]


@given(
    st.integers(2, 40),
    st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=20),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_forward_is_exactly_the_level_of_the_symbol(
    levels: int, values: list[float], dtype: torch.dtype
) -> None:
    y = torch.tensor(values, dtype=dtype)
    symbols = quantize_hard(y, levels)
    out = quantize(y, levels)
    assert torch.equal(out, symbols_to_values(symbols, levels, dtype=dtype))
    assert torch.equal(values_to_symbols(out, levels), symbols)
    # No level is nearer, up to rounding.
    gaps = (y.double()[:, None] - level_values(levels)).abs()
    chosen = gaps.gather(1, symbols[:, None])[:, 0]
    assert bool((chosen <= gaps.min(1).values + 1e-6).all())


def test_gradient_far_outside_is_finite_and_vanishes() -> None:
    _, gradients = with_gradient([-1e4, 1e4], 5)
    assert gradients == [0, 0]


def test_half_precision_keeps_its_type() -> None:
    y = torch.tensor([-0.3, 0.3], dtype=torch.bfloat16)
    out = quantize(y, 2)
    assert out.dtype == torch.bfloat16 and out.tolist() == [-0.5, 0.5]
    assert quantize_hard(y, 2).tolist() == [0, 1]


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="NaN"):
        quantize_hard(torch.tensor([0.0, float("nan")]), 2)
    with pytest.raises(InputError, match="at least 2 levels, not 1"):
        quantize(torch.zeros(1), 1)
    with pytest.raises(InputError, match="0 to 2, allowed are 0 to 1"):
        symbols_to_values(torch.tensor([0, 2]), 2)
    with pytest.raises(InputError, match="not levels"):
        values_to_symbols(torch.tensor([0.45]), 2)
    assert torch.isnan(quantize(torch.tensor([float("nan")]), 2)).all()
