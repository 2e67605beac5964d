"""Weight normalisation: kernels, the start that depends on the data, and plain layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gencomp.networks.float64 import in_float64
from gencomp.networks.weight_norm import (
    START_DEVIATION,
    WeightNorm,
    WeightNormConv2d,
    WeightNormConvTranspose2d,
    starting,
)

LAYERS = [
    lambda: WeightNormConv2d(3, 5, 3, padding=1),
    lambda: WeightNormConv2d(3, 5, 5, stride=2),
    lambda: WeightNormConvTranspose2d(3, 5, 5, stride=2),
]


def inputs(batch: int = 8) -> Tensor:
    """Correlated channels with a mean."""
    x_BCHW = torch.randn(batch, 3, 12, 12)
    return x_BCHW * 3 + x_BCHW.flip(1) + 2


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> WeightNorm:
    torch.manual_seed(0)
    return request.param()


def outputs_first(layer: WeightNorm, kernels: Tensor) -> Tensor:
    return kernels if isinstance(layer, WeightNormConv2d) else kernels.transpose(0, 1)


def test_kernels_of_an_output_have_the_norm_exp_g(layer: WeightNorm) -> None:
    nn.init.normal_(layer.log_scale_O)
    kernels = outputs_first(layer, layer.kernels(layer.log_scale_O))
    norms = kernels.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, layer.log_scale_O.exp())


def test_the_start_gives_mean_0_and_deviation_a_tenth(layer: WeightNorm) -> None:
    """The original divides log(scale) by 3, which leaves the cube root of the scale."""
    x_BCHW = inputs()
    with starting(layer):
        first = layer(x_BCHW)
    moments = first.transpose(0, 1).flatten(1)
    torch.testing.assert_close(moments.mean(1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        moments.std(1, unbiased=False), torch.full((5,), START_DEVIATION), atol=1e-5, rtol=0
    )
    assert torch.equal(layer(x_BCHW), first)


def test_other_inputs_do_not_move_the_start(layer: WeightNorm) -> None:
    with starting(layer):
        layer(inputs())
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer(inputs() * 5)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_a_constant_input_leaves_the_scale() -> None:
    """The scale 0.1 / √(0 + 1e-10) would be 10,000."""
    layer = WeightNormConv2d(3, 5, 3, padding=1)
    with starting(layer):
        layer(torch.zeros(2, 3, 8, 8))
    assert torch.equal(layer.log_scale_O, torch.zeros(5))
    assert layer.bias_O.abs().max() == 0


def test_a_stack_starts_layer_by_layer() -> None:
    torch.manual_seed(0)
    stack = nn.Sequential(
        WeightNormConv2d(3, 8, 3, padding=1), nn.ELU(), WeightNormConv2d(8, 4, 3, padding=1)
    )
    with starting(stack):
        stack(inputs())
    y_OBHW = stack(inputs(batch=2000)).transpose(0, 1).flatten(1)
    assert (y_OBHW.std(1) - START_DEVIATION).abs().max() < 0.03  # another batch
    assert y_OBHW.mean(1).abs().max() < 0.03


def test_gradients_are_those_of_the_kernels(layer: WeightNorm) -> None:
    """A step along g scales the kernel; the gradient of v has no part along v itself."""
    layer.double()
    x_BCHW = inputs(2).double()
    layer(x_BCHW).square().sum().backward()
    assert layer.direction.grad is not None
    along = outputs_first(layer, layer.direction.grad * layer.direction).flatten(1).sum(1)
    assert along.abs().max() < 1e-9 * layer.direction.grad.abs().max()


def test_the_plain_layer_computes_the_same(layer: WeightNorm) -> None:
    nn.init.normal_(layer.log_scale_O)
    nn.init.normal_(layer.bias_O)
    x_BCHW = inputs(2)
    torch.testing.assert_close(layer.plain()(x_BCHW), layer(x_BCHW))
    exact = in_float64(nn.Sequential(layer))
    assert not any(isinstance(module, WeightNorm) for module in exact.modules())
    expected = layer.double()(x_BCHW.double())
    torch.testing.assert_close(exact(x_BCHW.double()), expected, rtol=1e-12, atol=1e-12)
