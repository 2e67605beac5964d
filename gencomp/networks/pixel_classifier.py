"""The classifier of pixels, a segmentation network by which decoded images are judged.

    images [B, 3, H, W] ─▶ blocks of 3×3 convolutions, each halving the sides     (going down)
                        ─▶ from the smallest map up: a 1×1 convolution of each block's output, plus
                           the map below it at twice the sides                     (coming up)
                        ─▶ block of a 3×3 convolution ─▶ 1×1 convolution
                        ─▶ logits [B, classes, H, W] by bilinear interpolation

This is a feature pyramid (Lin et al., CVPR 2017). A block is that of
`gencomp.networks.classifier`: an image is seen alone, whatever stands beside it in a batch. With
widths 16, 32, 64, 128 and 128 and 11 classes there are 266,971 parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencomp.networks.classifier import block


class PixelNetwork(nn.Module):
    """The logits of the classes of each pixel, from images of any size on [−1, 1].

    Args:
        widths: the number of channels of each block going down, multiples of 8.
        classes: the number of classes.
    """

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        across = widths[1] if len(widths) > 1 else widths[0]
        self.down = nn.ModuleList(
            nn.Sequential(*block(narrow, wide, stride=2)) for narrow, wide in pairwise((3, *widths))
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, across, 1) for width in widths)
        self.smooth = nn.Sequential(*block(across, across, stride=1))
        self.head = nn.Conv2d(across, classes, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, [B, classes, H, W]."""
        seen = x_BCHW
        maps: list[Tensor] = []
        for halving, lateral in zip(self.down, self.lateral):  # noqa: B905 (TorchScript)
            seen = halving(seen)
            maps.append(lateral(seen))
        merged = maps[-1]
        for place in range(len(maps) - 2, -1, -1):
            merged = maps[place] + _resized(merged, maps[place].shape[2], maps[place].shape[3])
        logits_BLhw = self.head(self.smooth(merged))
        return _resized(logits_BLhw, x_BCHW.shape[2], x_BCHW.shape[3])


class SegmentationNetwork(nn.Module):
    """The network in the form that files have: from uint8 images to logits of every pixel."""

    def __init__(self, network: PixelNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """The logits [B, classes, H, W] of uint8 images [B, 3, H, W]."""
        return self.network(images.to(torch.float32) / 127.5 - 1)


def _resized(x_BCHW: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x_BCHW, size=[height, width], mode="bilinear", align_corners=False)
