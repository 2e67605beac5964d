"""The quantizer: published values and gradients, ties, symbols, and what it always gave."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gencomp.errors import InputError
from gencomp.quantizer import (
    Quantizer,
    cells,
    grid,
    half_cell,
    nearest_symbols,
    quantize,
    quantize_hard,
    soft_value,
    symbols_to_values,
)

INPUTS = [-3, -1, -0.2, -1e-6, 0, 1e-6, 0.2, 1, 3]
FIVE = (-2.0, -1.0, 0.0, 1.0, 2.0)

Distance = Literal["squared", "absolute"]


def with_gradient(values: list[float], quantizer: Quantizer) -> tuple[list[float], list[float]]:
    y = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    out = quantize(y, quantizer)
    out.sum().backward()
    assert y.grad is not None
    return out.tolist(), y.grad.tolist()


class TestCellsOfDplc:
    def test_two_levels(self) -> None:
        values, gradients = with_gradient(INPUTS, cells(2))
        assert values == [-0.5] * 5 + [0.5] * 4
        half = [0.0049330186, 0.2099871708, 0.4805214914, 0.5]
        assert gradients == pytest.approx(half + [0.5] + half[::-1], rel=1e-8)

    def test_two_levels_closed_form(self) -> None:
        """The soft value for L = 2 is tanh(x)/2, and its derivative sech²(x)/2."""
        x = torch.linspace(-4, 4, 81, dtype=torch.float64)
        _, gradients = with_gradient(x.tolist(), cells(2))
        assert gradients == pytest.approx((0.5 / torch.cosh(x) ** 2).tolist(), rel=1e-12)

    def test_four_levels(self) -> None:
        values, gradients = with_gradient(INPUTS, cells(4))
        assert values == [-0.75, -0.75, -0.25, -0.25, -0.25, 0.25, 0.25, 0.75, 0.75]
        assert gradients[4] == pytest.approx(0.5025406, rel=1e-6)
        assert [gradients[1], gradients[7]] == pytest.approx([0.3134435] * 2, rel=1e-6)
        assert [gradients[0], gradients[8]] == pytest.approx([0.0423375] * 2, rel=1e-5)

    def test_centres_are_mid_points(self) -> None:
        assert cells(2).centres == (-0.5, 0.5)
        assert cells(3).centres == pytest.approx([-2 / 3, 0, 2 / 3], abs=1e-15)
        assert cells(4).centres == (-0.75, -0.25, 0.25, 0.75)
        assert half_cell(2) == 0.5

    @pytest.mark.parametrize("levels", [*range(2, 40), 100, 256])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_bit_for_bit_what_it_was_in_the_first_version(
        self, levels: int, dtype: torch.dtype
    ) -> None:
        """Files and training runs hang on every bit, on the edges of cells and beside them too."""
        index = torch.arange(0, levels + 1, dtype=torch.float64)
        edges = (-1 + 2 * index / levels).to(dtype)
        near = [torch.nextafter(edges.double(), torch.tensor(s)).to(dtype) for s in (-9.0, 9.0)]
        near += [torch.nextafter(edges, torch.full_like(edges, s)) for s in (-9.0, 9.0)]
        generator = torch.Generator().manual_seed(levels)
        spread = (torch.randn(500, generator=generator, dtype=torch.float64) * 1.5).to(dtype)
        y = torch.cat([edges, *near, spread, torch.tensor([-1e30, 1e30, 0.0]).to(dtype)])
        seen, gradients = [], []
        for function in (
            lambda x: quantize(x, cells(levels)),
            lambda x: first_version_quantize(x, levels),
        ):
            leaf = y.clone().requires_grad_()
            out = function(leaf)
            out.backward(torch.linspace(-1, 1, len(y)).to(dtype))
            assert leaf.grad is not None
            seen.append(out.detach())
            gradients.append(leaf.grad)
        assert torch.equal(*seen) and torch.equal(*gradients)
        symbols = quantize_hard(y, cells(levels))
        wide = y.to(torch.promote_types(dtype, torch.float32))
        assert torch.equal(symbols, first_version_nearest(wide, levels))
        values = symbols_to_values(symbols, cells(levels), dtype=dtype)
        assert torch.equal(values, first_version_values(levels, dtype)[symbols])


def first_version_values(levels: int, dtype: torch.dtype) -> Tensor:
    index_L = torch.arange(levels, dtype=torch.float64)
    return (-1 + (2 * index_L + 1) / levels).to(dtype)


def first_version_nearest(x: Tensor, levels: int) -> Tensor:
    inner = torch.arange(1, levels, dtype=torch.float64)
    return torch.bucketize(x, (-1 + 2 * inner / levels).to(x.dtype), right=False)


def first_version_quantize(y: Tensor, levels: int) -> Tensor:
    x = y.to(torch.promote_types(y.dtype, torch.float32))
    c_L = first_version_values(levels, x.dtype)
    hard = c_L[first_version_nearest(x.detach(), levels)]
    w = torch.softmax(1.0 * (2 * x[..., None] * c_L - c_L.square()), dim=-1)
    soft = (w * c_L).sum(-1)
    return (hard + (soft - soft.detach())).to(y.dtype)


class TestFiveCentresOfGanCompression:
    """Centres −2..2, σ = 1: value, soft value and slope for either distance."""

    TABLE = (
        (-3.0, -2, -1.451942, 0, -1.951950, 0.092765),
        (-1.6, -2, -1.156247, 0.742907, -1.474434, 0.697175),
        (-0.3, 0, -0.216915, 0.797164, -0.298683, 0.995162),
        (0.0, 0, 0, 0.636504, 0, 0.995587),
        (0.49, 0, 0.373711, 0.844103, 0.487378, 0.989869),
        (0.51, 1, 0.390611, 0.845696, 0.507165, 0.988829),
        (0.75, 1, 0.591527, 0.812960, 0.742216, 0.966868),
        (1.0, 1, 0.781334, 0.580624, 0.978907, 0.922760),
        (1.51, 2, 1.090273, 0.721362, 1.409590, 0.743177),
        (2.0, 2, 1.451942, 0.348789, 1.707945, 0.467435),
        (2.3, 2, 1.451942, 0, 1.823600, 0.309044),
        (5.0, 2, 1.451942, 0, 1.999089, 0.001822),
    )

    @pytest.mark.parametrize(("distance", "column"), [("absolute", 2), ("squared", 4)])
    def test_values_and_slopes(self, distance: Distance, column: int) -> None:
        quantizer = Quantizer(FIVE, distance=distance)
        inputs = [row[0] for row in self.TABLE]
        values, slopes = with_gradient(inputs, quantizer)
        soft = soft_value(torch.tensor(inputs, dtype=torch.float64), quantizer)
        assert values == [row[1] for row in self.TABLE]
        assert soft.tolist() == pytest.approx([row[column] for row in self.TABLE], abs=1e-6)
        assert slopes == pytest.approx([row[column + 1] for row in self.TABLE], abs=1e-6)
        for row, slope in zip(self.TABLE, slopes, strict=True):
            assert slope == 0 or row[column + 1] != 0, "exactly 0 where the table says so"

    def test_ties(self) -> None:
        y = torch.tensor([-1.5, -0.5, 0.5, 1.5])
        assert quantize(y, Quantizer(FIVE)).tolist() == [-2, -1, 0, 1]

    def test_a_sharp_absolute_distance_is_spiky(self) -> None:
        """σ = 10: 9e-4 at a centre, 5.0 half way."""
        _, slopes = with_gradient([1.0, 0.5], Quantizer(FIVE, 10, "absolute"))
        assert slopes == pytest.approx([9e-4, 5.0], rel=0.02)

    def test_frequencies_of_normal_values(self) -> None:
        """10^6 values of N(0, 1): standard errors are 0.0005, so 0.002 is four of them."""
        values = quantize(torch.randn(1_000_000), Quantizer(FIVE))
        found = [(values == centre).float().mean().item() for centre in FIVE]
        assert found == pytest.approx([0.0668, 0.2417, 0.3829, 0.2417, 0.0668], abs=0.002)
        assert set(values.unique().tolist()) == set(FIVE)


class TestInwardGradient:
    QUANTIZER = Quantizer(FIVE, gradient="inward")

    def slopes(self, sign: float) -> list[float]:
        """The gradient of a loss of slope `sign` beyond the lowest centre, inside and above."""
        y = torch.tensor([-9.0, -2.0, 0.3, 1.5, 2.0, 9.0], requires_grad=True)
        (sign * quantize(y, self.QUANTIZER)).sum().backward()
        assert y.grad is not None
        return y.grad.tolist()

    def test_it_is_1_but_for_steps_away(self) -> None:
        # A descent step with the gradient 1 lowers a value, and with −1 it raises it.
        assert self.slopes(1.0) == [0, 1, 1, 1, 1, 1]
        assert self.slopes(-1.0) == [-1, -1, -1, -1, -1, 0]

    def test_values_are_those_of_the_soft_gradient(self) -> None:
        y = torch.randn(1000) * 3
        assert torch.equal(quantize(y, self.QUANTIZER), quantize(y, Quantizer(FIVE)))
        assert torch.isnan(quantize(torch.tensor([float("nan")]), self.QUANTIZER)).all()

    def test_no_value_is_lost_and_none_runs_away(self) -> None:
        """Values that start far outside reach their targets, which one of them cannot."""
        y = torch.tensor([8.0, -8.0, 8.0], requires_grad=True)
        target = torch.tensor([-1.0, 1.0, 5.0])
        for _ in range(400):
            (gradient,) = torch.autograd.grad(
                (quantize(y, self.QUANTIZER) - target).square().sum(), y
            )
            with torch.no_grad():
                y -= 0.05 * gradient
        assert quantize(y.detach(), self.QUANTIZER).tolist() == [-1, 1, 2]
        assert y[2] <= 8


class TestLearntCentres:
    @pytest.mark.parametrize("gradient", ["soft", "inward"])
    @pytest.mark.parametrize("distance", ["squared", "absolute"])
    def test_at_their_start_they_are_the_fixed_ones(
        self, distance: Distance, gradient: Literal["soft", "inward"]
    ) -> None:
        quantizer = Quantizer(FIVE, 1.3, distance, gradient=gradient)
        y = torch.randn(500, dtype=torch.float64) * 2
        results = []
        for centres in (None, torch.tensor(FIVE)):
            leaf = y.clone().requires_grad_()
            out = quantize(leaf, quantizer, centres)
            out.backward(torch.linspace(-1, 1, 500, dtype=torch.float64))
            assert leaf.grad is not None
            results += [(out.detach(), leaf.grad, quantize_hard(y, quantizer, centres))]
        for fixed, learnt in zip(*results, strict=True):
            torch.testing.assert_close(learnt, fixed, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("gradient", ["soft", "inward"])
    def test_they_move_to_the_values(self, gradient: Literal["soft", "inward"]) -> None:
        """Two centres for values about −3 and 5 are found by descent on the squared error."""
        quantizer = Quantizer((-1.0, 1.0), 4.0, gradient=gradient)
        values = torch.cat([torch.randn(200) * 0.1 - 3, torch.randn(200) * 0.1 + 5])
        centres = torch.tensor([-1.0, 1.0], requires_grad=True)
        for _ in range(200):
            error = (quantize(values, quantizer, centres) - values).square().mean()
            (step,) = torch.autograd.grad(error, centres)
            with torch.no_grad():
                centres -= 0.3 * step
        assert centres.tolist() == pytest.approx([-3, 5], abs=0.05)
        symbols = quantize_hard(values, quantizer, centres)
        shown = symbols_to_values(symbols, quantizer, centres_L=centres.detach())
        assert torch.equal(shown, quantize(values, quantizer, centres).detach())

    def test_boundaries_lie_between_them(self) -> None:
        centres = torch.tensor([-1.0, 0.0, 4.0])
        found = quantize_hard(torch.tensor([-0.5, 2.0, 2.1]), Quantizer((-1.0, 0.0, 1.0)), centres)
        assert found.tolist() == [0, 1, 2]


class TestGridOfUniversalRepresentations:
    """L centres from −1 to 1, the absolute distance, σ = 1 or 2/L."""

    INPUTS = (0.0, 0.25, 0.5, 0.75, 0.99, 1.0, 1.0001, 3.0)

    @pytest.mark.parametrize(
        ("levels", "sharpness", "expected"),
        [
            (3, 1.0, (0.423883, 0.540129, 0.619156, 0.628972, 0.568872, 0.282587, 0, 0)),
            (4, 1.0, (0.559496, 0.525934, 0.432935, 0.507105, 0.527852, 0.263711, 0, 0)),
            (8, 0.25, (0.136489, 0.129097, 0.106100, 0.064826, 0.070508, 0.035375, 0, 0)),
        ],
    )
    def test_slopes(self, levels: int, sharpness: float, expected: tuple[float, ...]) -> None:
        quantizer = grid(levels, sharpness, "absolute")
        for sign in (1, -1):
            values, slopes = with_gradient([sign * x for x in self.INPUTS], quantizer)
            assert slopes == pytest.approx(expected, abs=1e-6)
            assert slopes[-2:] == [0, 0]
            assert set(values) <= set(quantizer.centres)

    @pytest.mark.parametrize("levels", [3, 4, 8])
    def test_outside_there_is_no_slope_in_float32_either(self, levels: int) -> None:
        y = torch.tensor([-1e20, -7.0, -1.001, 1.001, 7.0, 1e20], requires_grad=True)
        quantize(y, grid(levels, 1.0, "absolute")).sum().backward()
        assert y.grad is not None and y.grad.tolist() == [0] * 6

    def test_centres(self) -> None:
        assert grid(2).centres == (-1, 1) and grid(3).centres == (-1, 0, 1)
        assert grid(8).centres == pytest.approx([-1 + 2 * j / 7 for j in range(8)], abs=1e-15)
        assert grid(8).centres[-1] == 1


def test_ties_go_to_the_lower_level() -> None:
    y = torch.tensor([-0.5, 0.0, 0.5])
    assert quantize_hard(y, cells(4)).tolist() == [0, 1, 2]
    assert quantize_hard(torch.nextafter(y, y + 1), cells(4)).tolist() == [1, 2, 3]


quantizers = st.one_of(
    st.integers(2, 40).map(cells),
    st.integers(2, 40).map(grid),
    st.builds(
        Quantizer,
        st.lists(st.integers(-50, 50), min_size=2, max_size=9, unique=True).map(
            lambda found: tuple(sorted(x / 8 for x in found))
        ),
        st.floats(0.1, 20),
        st.sampled_from(["squared", "absolute"]),
    ),
)


@given(
    quantizers,
    st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=20),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_forward_is_exactly_the_centre_of_the_symbol(
    quantizer: Quantizer, values: list[float], dtype: torch.dtype
) -> None:
    y = torch.tensor(values, dtype=dtype)
    symbols = quantize_hard(y, quantizer)
    assert torch.equal(quantize(y, quantizer), symbols_to_values(symbols, quantizer, dtype=dtype))
    # No centre is nearer, up to rounding.
    centres = torch.tensor(quantizer.centres, dtype=torch.float64)
    gaps = (y.double()[:, None] - centres).abs()
    chosen = gaps.gather(1, symbols[:, None])[:, 0]
    assert bool((chosen <= gaps.min(1).values + 1e-6).all())


@given(quantizers, st.floats(-4, 4))
def test_the_gradient_is_that_of_the_soft_value(quantizer: Quantizer, value: float) -> None:
    """Central differences, away from the kinks of the absolute distance."""
    step = 1e-5
    if min(abs(value - centre) for centre in quantizer.centres) < 2 * step:
        return
    _, (slope,) = with_gradient([value], quantizer)
    ends = torch.tensor([value - step, value + step], dtype=torch.float64)
    low, high = soft_value(ends, quantizer).tolist()
    assert slope == pytest.approx(
        (high - low) / (2 * step), abs=1e-5 * quantizer.sharpness**2 + 1e-6
    )


@pytest.mark.parametrize("distance", ["squared", "absolute"])
def test_gradient_far_outside_is_finite_and_vanishes(distance: Distance) -> None:
    values, gradients = with_gradient([-1e4, 1e4], Quantizer(FIVE, distance=distance))
    assert gradients == [0, 0] and values == [-2, 2]


def test_half_precision_keeps_its_type() -> None:
    y = torch.tensor([-0.3, 0.3], dtype=torch.bfloat16)
    out = quantize(y, cells(2))
    assert out.dtype == torch.bfloat16 and out.tolist() == [-0.5, 0.5]
    assert quantize_hard(y, cells(2)).tolist() == [0, 1]


def test_nearest_symbols_read_nothing_from_a_device() -> None:
    """Even a look for NaNs fails on a device without values; on a GPU it would wait."""
    y = torch.linspace(-2, 2, 41)
    assert torch.equal(nearest_symbols(y, cells(5)), quantize_hard(y, cells(5)))
    assert nearest_symbols(y.to("meta"), cells(5)).shape == y.shape
    with pytest.raises(RuntimeError):
        quantize_hard(y.to("meta"), cells(5))


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="NaN"):
        quantize_hard(torch.tensor([0.0, float("nan")]), cells(2))
    for make in (cells, grid, lambda levels: Quantizer((0.0,) * levels)):
        with pytest.raises(InputError, match="at least 2 levels, not 1"):
            make(1)
    with pytest.raises(InputError, match=r"centres must increase, not run \(0.0, 0.0\)"):
        Quantizer((0.0, 0.0))
    with pytest.raises(InputError, match="centres must increase"):
        Quantizer((0.0, float("nan")))
    with pytest.raises(InputError, match="sharpness must be positive, not 0"):
        Quantizer(FIVE, 0)
    with pytest.raises(InputError, match="0 to 2, allowed are 0 to 1"):
        symbols_to_values(torch.tensor([0, 2]), cells(2))
    for quantizer in (cells(2), grid(2, 1.0, "absolute")):
        assert torch.isnan(quantize(torch.tensor([float("nan")]), quantizer)).all()


def test_constants_that_an_evaluation_made_serve_training() -> None:
    """They are made once for a device; made in inference mode, they could not be differentiated."""
    quantizer = Quantizer(FIVE)
    with torch.inference_mode():
        quantize_hard(torch.zeros(3), quantizer)
        symbols_to_values(torch.zeros(3, dtype=torch.int64), quantizer)
    y = torch.linspace(-1, 1, 9, requires_grad=True)
    quantize(y, quantizer).sum().backward()
    assert y.grad is not None and y.grad.isfinite().all()
