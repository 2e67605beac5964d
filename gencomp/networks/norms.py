"""Normalisations of feature maps that depend on no other image and on no running statistics."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["channel", "instance"]


class ChannelNorm2d(nn.Module):
    """The normalisation (x − m)/√(v + ε)·g + h over the channels of each pixel.

    Their mean is m and their variance v. A pixel's value depends on its own features alone, so
    crops and tiles of an image give what the whole image gives (Mentzer et al., NeurIPS 2020).

    Args:
        channels: the number of channels.
        eps: the ε.
    """

    def __init__(self, channels: int, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        y_BHWC = F.layer_norm(x_BHWC, self.weight.shape, self.weight, self.bias, self.eps)
        return y_BHWC.permute(0, 3, 1, 2)


class InstanceNorm2d(nn.Module):
    """The normalisation (x − m)/√(v + ε)·g + h over the pixels of each channel.

    Their mean is m and their variance v. TensorFlow's ε is 1e-6 and torch's 1e-5. A map of one
    pixel becomes h.

    Args:
        channels: the number of channels.
        eps: the ε.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        # A group of one channel; nn.functional.group_norm would refuse a single pixel.
        return torch.group_norm(x_BCHW, len(self.weight), self.weight, self.bias, self.eps)


def norm(kind: Norm, channels: int) -> nn.Module:
    """A normalisation of its published ε."""
    return ChannelNorm2d(channels) if kind == "channel" else InstanceNorm2d(channels)
