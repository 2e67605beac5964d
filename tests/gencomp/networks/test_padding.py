"""Zeros, reflections and averages at the borders, by both rules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gencomp.networks import padding
from gencomp.networks.float64 import in_float64


def row(*values: float) -> Tensor:
    """Values along a row, with rows above and below that a kernel of ones there does not see."""
    x = torch.zeros(1, 1, len(values), len(values))
    x[0, 0] = torch.tensor(values)
    return x


def along_rows(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Give a kernel the taps 1, 2, 3 along rows, in its first row."""
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, 0] = torch.tensor([1.0, 2.0, 3.0])
        assert conv.bias is not None
        conv.bias.zero_()


@pytest.mark.parametrize(("same", "expected"), [(True, [8, 20, 32, 20]), (False, [3, 14, 26, 38])])
def test_a_convolution_of_stride_2(same: bool, expected: list[float]) -> None:
    layers = nn.Sequential(*padding.strided(1, 1, 3, 2, same))
    along_rows(layers[-1])  # type: ignore[arg-type]
    assert layers(row(*range(8)))[0, 0, 1].tolist() == expected


@pytest.mark.parametrize(
    ("same", "expected"),
    [(True, [1, 2, 5, 4, 9, 6, 13, 8]), (False, [2, 5, 4, 9, 6, 13, 8, 12])],
)
def test_a_transposed_convolution(same: bool, expected: list[float]) -> None:
    layer = padding.Upsample2d(1, 1, same)
    along_rows(layer.conv)
    found = layer(row(1, 2, 3, 4))[0, 0]
    assert found.shape == (8, 8)
    # The first row of the kernel meets the even rows, or the odd ones of the shifted rule.
    assert found[2 if same else 1].tolist() == expected


@pytest.mark.parametrize(("same", "expected"), [(True, [1, 3, 5, 6.5]), (False, [0.5, 2, 4, 6])])
def test_averages(same: bool, expected: list[float]) -> None:
    found = padding.halved(row(*range(8)), same)
    assert found.shape == (1, 1, 4, 4) and found[0, 0, 1].tolist() == expected
    # Windows at the border average the real pixels alone.
    ones = padding.halved(torch.ones(1, 2, 7, 5), same)
    assert ones.shape == (1, 2, 4, 3) and bool((ones == 1).all())


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (4, 2), (4, 1), (5, 2)])
def test_the_rule_same_makes_as_many_windows_as_there_are_strides(
    size: int, kernel: int, stride: int
) -> None:
    before, after = padding.same_zeros(size, kernel, stride)
    assert 0 <= before <= after <= before + 1
    assert (size + before + after - kernel) // stride + 1 == -(-size // stride)


def test_reflections_are_torch_s() -> None:
    x = torch.randn(2, 3, 8, 9, dtype=torch.float64, requires_grad=True)
    for pixels in (1, 3):
        found = padding.ReflectPad2d(pixels)(x)
        expected = nn.functional.pad(x, (pixels,) * 4, mode="reflect")
        assert torch.equal(found, expected)
        weights = torch.randn_like(found)
        gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, expected)]
        torch.testing.assert_close(*gradients)


def test_reflections_and_zeros_stand_before_products_in_float64() -> None:
    """A convolution between them has no padding of its own, so its products apply."""
    network = nn.Sequential(
        padding.ReflectPad2d(1), nn.Conv2d(3, 4, 3), *padding.strided(4, 5, 3, 2, True)
    )
    products = in_float64(network)
    assert not any(isinstance(module, nn.Conv2d) for module in products.modules())
    x = torch.randn(1, 3, 8, 6, dtype=torch.float64)
    torch.testing.assert_close(products(x), network.double()(x))


@pytest.mark.parametrize(
    ("height", "width", "whole"),
    [(500, 333, (512, 336)), (17, 17, (32, 32)), (33, 16, (48, 32)), (512, 1024, (512, 1024))],
)
def test_sizes_to_which_images_are_continued(
    height: int, width: int, whole: tuple[int, int]
) -> None:
    found = tuple(padding.whole_size(side, 16, 32) for side in (height, width))
    assert found == whole
    x = torch.randint(0, 256, (1, 2, height, width), dtype=torch.uint8)
    continued = padding.extended(x, *whole)
    assert continued.shape[2:] == whole
    assert torch.equal(continued[:, :, :height, :width], x)
    if whole[0] > height:
        assert torch.equal(continued[:, :, height], continued[:, :, height - 2])


def test_what_cannot_be_reflected_is_repeated() -> None:
    ids = torch.tensor([[[1, 2, 3]]])
    assert padding.extended(ids, 2, 6).tolist() == [[[1, 2, 3, 3, 3, 3], [1, 2, 3, 3, 3, 3]]]
    assert padding.extended(ids, 1, 5).tolist() == [[[1, 2, 3, 2, 1]]]
