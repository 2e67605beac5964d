"""Convolutions with weight normalisation, whose start depends on the data.

The kernel of an output channel is exp(g) · v / ‖v‖, with the norm over the channel's taps (Salimans
and Kingma, *Weight Normalization*, NeurIPS 2016). The start sets g and the bias from the first
batch, so that each channel of each layer begins with the mean 0 and the standard deviation 0.1, as
in the ResNet VAE of Kingma et al., *Improving Variational Inference with Inverse Autoregressive
Flow*, NeurIPS 2016.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencomp.collectives import all_reduce_sum

Layer = TypeVar("Layer", nn.Conv2d, nn.ConvTranspose2d)

START_DEVIATION = 0.1
_DIRECTION_DEVIATION = 0.05
# A channel that varies less than this over the first batch has a constant input, which says nothing
# about its scale.
_CONSTANT_VARIANCE = 1e-6


class WeightNorm(nn.Module, ABC):
    """A convolution with the kernels exp(g) · v / ‖v‖.

    Attributes:
        direction: v, of the shape of the kernels.
        log_scale_O: g.
        bias_O: the bias.
    """

    _outputs_axis: int
    # Whether `starting` is in force.
    _starts = False

    def __init__(self, kernels: tuple[int, ...]) -> None:
        super().__init__()
        outputs = kernels[self._outputs_axis]
        self.direction = nn.Parameter(_DIRECTION_DEVIATION * torch.randn(kernels))
        self.log_scale_O = nn.Parameter(torch.zeros(outputs))
        self.bias_O = nn.Parameter(torch.zeros(outputs))

    @abstractmethod
    def convolved(self, x_BCHW: Tensor, kernels: Tensor, bias_O: Tensor | None) -> Tensor:
        """The convolution with given kernels."""

    @abstractmethod
    def plain(self) -> nn.Module:
        """The layer of torch that computes the same with the present weights."""

    def kernels(self, log_scale_O: Tensor) -> Tensor:
        """The kernels exp(g) · v / ‖v‖ for given g."""
        axes = [axis for axis in range(4) if axis != self._outputs_axis]
        norms = self.direction.square().sum(axes, keepdim=True).sqrt()
        return self.direction * (log_scale_O.exp().view_as(norms) / norms)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self._starts:
            self._start(x_BCHW)
        return self.convolved(x_BCHW, self.kernels(self.log_scale_O), self.bias_O)

    @torch.no_grad()
    def _start(self, x_BCHW: Tensor) -> None:
        """Set g and the bias, so that each channel has the start's moments over the global batch.

        A channel with a constant input keeps the scale 1.
        """
        unit = self.kernels(torch.zeros_like(self.log_scale_O))
        mean_O, variance_O = _moments(self.convolved(x_BCHW, unit, None))
        scale_O = START_DEVIATION / variance_O.sqrt()
        scale_O[variance_O < _CONSTANT_VARIANCE] = 1
        self.log_scale_O.copy_(scale_O.log())
        self.bias_O.copy_(-mean_O * scale_O)


class WeightNormConv2d(WeightNorm):
    """The convolution from [B, inputs, H, W] to [B, outputs, H', W'], padded with zeros."""

    _outputs_axis = 0

    def __init__(
        self, inputs: int, outputs: int, taps: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__((outputs, inputs, taps, taps))
        self.stride, self.padding = stride, padding

    def convolved(self, x_BCHW: Tensor, kernels: Tensor, bias_O: Tensor | None) -> Tensor:
        return F.conv2d(x_BCHW, kernels, bias_O, self.stride, self.padding)

    def plain(self) -> nn.Conv2d:
        outputs, inputs, taps, _ = self.direction.shape
        layer = nn.Conv2d(inputs, outputs, taps, self.stride, self.padding)
        return _with_weights(layer, self)


class WeightNormConvTranspose2d(WeightNorm):
    """The transposed convolution from [B, inputs, H, W] to [B, outputs, H', W']."""

    _outputs_axis = 1

    def __init__(self, inputs: int, outputs: int, taps: int, stride: int) -> None:
        super().__init__((inputs, outputs, taps, taps))
        self.stride = stride

    def convolved(self, x_BCHW: Tensor, kernels: Tensor, bias_O: Tensor | None) -> Tensor:
        return F.conv_transpose2d(x_BCHW, kernels, bias_O, self.stride)

    def plain(self) -> nn.ConvTranspose2d:
        inputs, outputs, taps, _ = self.direction.shape
        return _with_weights(nn.ConvTranspose2d(inputs, outputs, taps, self.stride), self)


@contextmanager
def starting(network: nn.Module) -> Iterator[None]:
    """Let each layer with weight normalisation set its start from the next input that it gets."""
    layers = [module for module in network.modules() if isinstance(module, WeightNorm)]
    for layer in layers:
        layer._starts = True
    try:
        yield
    finally:
        for layer in layers:
            layer._starts = False


def _moments(y_BOHW: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and variance of each channel over the global batch, [O], in float64."""
    y_BOHW = y_BOHW.double()
    values = y_BOHW.new_tensor([y_BOHW.numel() / y_BOHW.shape[1]])
    values, sum_O = all_reduce_sum(torch.cat([values, y_BOHW.sum((0, 2, 3))])).split(
        [1, y_BOHW.shape[1]]
    )
    mean_O = sum_O / values
    squares_O = (y_BOHW - mean_O[:, None, None]).square().sum((0, 2, 3))
    return mean_O, all_reduce_sum(squares_O) / values


@torch.no_grad()
def _with_weights(layer: Layer, of: WeightNorm) -> Layer:
    layer.to(of.direction)
    layer.weight.copy_(of.kernels(of.log_scale_O))
    assert layer.bias is not None
    layer.bias.copy_(of.bias_O)
    return layer
