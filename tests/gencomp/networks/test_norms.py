"""Norms by their definitions, on one pixel, on crops, and with gradients."""

from __future__ import annotations

import pytest
import torch

from gencomp.networks.norms import ChannelNorm2d, InstanceNorm2d


@pytest.mark.parametrize(
    ("layer", "axes", "eps"), [(ChannelNorm2d(4), (1,), 1e-3), (InstanceNorm2d(4), (2, 3), 1e-6)]
)
def test_they_are_what_they_say(layer: torch.nn.Module, axes: tuple[int, ...], eps: float) -> None:
    layer = layer.double()
    torch.nn.init.normal_(layer.weight)  # type: ignore[arg-type]
    torch.nn.init.normal_(layer.bias)  # type: ignore[arg-type]
    x = 3 + 2 * torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    weight, bias = (t[:, None, None] for t in (layer.weight, layer.bias))
    expected = (x - mean) / (variance + eps).sqrt() * weight + bias
    torch.testing.assert_close(layer(x), expected)
    assert torch.autograd.gradcheck(layer, (x,), fast_mode=True)
    by_itself = layer(x[:1])
    torch.testing.assert_close(layer(x)[:1], by_itself, rtol=0, atol=1e-14)


def test_a_crop_of_the_channel_norm_is_that_of_the_image() -> None:
    x = torch.randn(1, 4, 8, 8)
    assert torch.equal(ChannelNorm2d(4)(x)[:, :, 2:5, 3:7], ChannelNorm2d(4)(x[:, :, 2:5, 3:7]))


def test_a_single_pixel_and_no_image() -> None:
    layer = InstanceNorm2d(3)
    torch.nn.init.constant_(layer.bias, 0.5)
    # The reciprocal of √ε is 1,000, and so is the factor of rounding errors.
    found = layer(torch.randn(1, 3, 1, 1)).flatten().tolist()
    assert found == pytest.approx([0.5] * 3, abs=1e-3)
    for empty in (layer, ChannelNorm2d(3)):
        assert empty(torch.zeros(0, 3, 4, 4)).shape == (0, 3, 4, 4)
