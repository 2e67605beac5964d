"""The classifier of images, whose features distances between sets of images compare.

    images [B, 3, H, W] ─▶ blocks of 3×3 convolutions, each halving the sides ─▶ mean over places
                        ─▶ features [B, D] ─▶ linear ─▶ logits [B, classes]

A block is a convolution of stride 2, group normalisation (Wu and He, ECCV 2018) and a ReLU. There
are no statistics over a batch, so the features of an image depend on this image alone, in training
too. With widths 16, 32, 64, 128 and 128 and 10 classes there are 246,682 parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

GROUPS = 8


def block(narrow: int, wide: int, stride: int) -> list[nn.Module]:
    """The layers of a block from `narrow` to `wide` channels, which are a multiple of `GROUPS`."""
    convolution = nn.Conv2d(narrow, wide, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return [convolution, nn.GroupNorm(GROUPS, wide), nn.ReLU(inplace=True)]


class FeatureTrunk(nn.Module):
    """The layers up to the features, from images of any size on [−1, 1].

    Args:
        widths: the number of channels of each block, multiples of `GROUPS`; the last is the number
            D of features.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for narrow, wide in pairwise((3, *widths)):
            layers += block(narrow, wide, stride=2)
        self.blocks = nn.Sequential(*layers)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The features of images, [B, D]."""
        return self.blocks(x_BCHW).mean((2, 3))


class FeatureNetwork(nn.Module):
    """A trunk in the form that files of feature networks have: from uint8 images to features."""

    def __init__(self, trunk: FeatureTrunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> Tensor:
        """The features [B, D] of uint8 images [B, 3, H, W]."""
        return self.trunk(images.to(torch.float32) / 127.5 - 1)
