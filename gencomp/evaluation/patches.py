"""Patches of images, on which codec papers take distances of features of large images.

Following Mentzer et al. (2020, "High-Fidelity Generative Image Compression"), an image of H×W
pixels gives a grid of ⌊H/p⌋·⌊W/p⌋ patches of p×p pixels from its upper left corner, and a second
grid of (⌊H/p⌋ − 1)·(⌊W/p⌋ − 1) patches that begins p/2 pixels further down and to the right. What
lies beyond the grids is left out.

Every patch weights the same, so that large images weight more than small ones. The patches of one
image are not independent, so errors are those of images: what a distance depends on is added up
over the patches of an image first.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cut(images_BCHW: Tensor, side: int) -> Tensor:
    """The patches of images of one size, [B, M, C, side, side]: the first grid by rows, the second.

    Raises:
        ValueError: the images are smaller than a patch.
    """
    height, width = images_BCHW.shape[-2:]
    if min(height, width) < side:
        raise ValueError(f"an image of {width}x{height} pixels has no patch of {side}x{side}")
    half = side // 2
    grids = [_grid(images_BCHW, side)]
    if min(height, width) >= 2 * side:
        inner = images_BCHW[..., half : height // side * side - side + half, :]
        grids.append(_grid(inner[..., half : width // side * side - side + half], side))
    return torch.cat(grids, dim=1)


def count(height: int, width: int, side: int) -> int:
    """The number of patches of an image; 0 if it is smaller than a patch."""
    rows, columns = height // side, width // side
    return rows * columns + max(rows - 1, 0) * max(columns - 1, 0)


def _grid(images_BCHW: Tensor, side: int) -> Tensor:
    tiles_BCYXPP = images_BCHW.unfold(-2, side, side).unfold(-2, side, side)
    return tiles_BCYXPP.permute(0, 2, 3, 1, 4, 5).flatten(1, 2).contiguous()
