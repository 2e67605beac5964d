"""Pads that are layers of their own, so that the convolutions after them take no padding.

Zeros on both sides of a convolution of size 3 and stride 2 centre its windows on the even pixels.
TensorFlow's rule SAME centres them on the odd ones: for n pixels, k taps and the stride s it makes
⌈n/s⌉ windows, and puts the odd one of their (⌈n/s⌉ − 1)·s + k − n zeros at the end. A transposed
convolution of that rule leaves out what these zeros would have given.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ReflectPad2d(nn.Module):
    """Continue images by their reflections about the outermost pixels.

    torch's own layer has no deterministic gradient on a GPU, and this one is made of parts that do.

    Args:
        pixels: the number of pixels on each side, fewer than an image's sides.
    """

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for axis in (2, 3):
            size, more = x_BCHW.shape[axis], self.pixels
            before = x_BCHW.narrow(axis, 1, more).flip(axis)
            after = x_BCHW.narrow(axis, size - 1 - more, more).flip(axis)
            x_BCHW = torch.cat([before, x_BCHW, after], axis)
        return x_BCHW


class SamePad2d(nn.Module):
    """The zeros that TensorFlow's rule SAME puts around images for a convolution.

    Args:
        kernel: the number of taps in either direction.
        stride: the stride in either direction.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x_BCHW: Tensor) -> Tensor:
        height, width = (same_zeros(n, self.kernel, self.stride) for n in x_BCHW.shape[2:])
        return F.pad(x_BCHW, (*width, *height))


class Upsample2d(nn.Module):
    """A transposed convolution of size 3 that doubles height and width.

    Args:
        inputs, outputs: the number of channels.
        same: whether the padding is TensorFlow's SAME, or else symmetric.
    """

    def __init__(self, inputs: int, outputs: int, same: bool) -> None:
        super().__init__()
        self.same = same
        zeros = 0 if same else 1
        self.conv = nn.ConvTranspose2d(inputs, outputs, 3, 2, padding=zeros, output_padding=zeros)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.conv(x_BCHW)
        if self.same:
            height, width = (2 * size for size in x_BCHW.shape[2:])
            y_BCHW = y_BCHW[:, :, :height, :width]
        return y_BCHW


def strided(inputs: int, outputs: int, kernel: int, stride: int, same: bool) -> list[nn.Module]:
    """The layers of a convolution of odd size, or of even size and stride 2, with zeros around.

    Args:
        inputs, outputs: the number of channels.
        kernel, stride: the size and the stride.
        same: whether the padding is TensorFlow's SAME, or else symmetric.
    """
    if same:
        return [SamePad2d(kernel, stride), nn.Conv2d(inputs, outputs, kernel, stride)]
    return [nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2)]


def halved(x_BCHW: Tensor, same: bool) -> Tensor:
    """The averages over windows of 3×3 pixels at every second one, of real pixels alone.

    Height and width are halved and rounded up.
    """
    if not same:
        return F.avg_pool2d(x_BCHW, 3, 2, padding=1, count_include_pad=False)
    height, width = (same_zeros(n, 3, 2) for n in x_BCHW.shape[2:])
    padded_BCHW = F.pad(x_BCHW, (*width, *height))
    weight_11HW = F.pad(x_BCHW.new_ones(1, 1, *x_BCHW.shape[2:]), (*width, *height))
    return F.avg_pool2d(padded_BCHW, 3, 2) / F.avg_pool2d(weight_11HW, 3, 2)


def same_zeros(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """The zeros before and after `size` pixels by TensorFlow's rule SAME."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def whole_size(size: int, multiple: int, least: int) -> int:
    """The least multiple that is no smaller than `size` and `least`."""
    return max(least, -(-size // multiple) * multiple)


def extended(x: Tensor, height: int, width: int) -> Tensor:
    """Images or maps [..., H, W], continued at the bottom and on the right to a size.

    They are continued by their reflection about the last pixel, or by the last pixel where more is
    missing than the reflection has.
    """
    for axis, wanted in ((-2, height), (-1, width)):
        size = x.shape[axis]
        if size == wanted:
            continue
        place = torch.arange(wanted, device=x.device)
        reflects = wanted - size < size
        beyond = 2 * (size - 1) - place if reflects else torch.full_like(place, size - 1)
        x = x.index_select(axis, torch.where(place < size, place, beyond))
    return x
