"""Pictures as the codec takes them, whole or in tiles."""

from __future__ import annotations

from typing import Literal

import numpy as np

from gencomp.coding.container import MAX_SIDE
from gencomp.errors import InputError
from gencomp.systems.irec.latent_models import Tile

# Whether a model is lossless, or lossy with posteriors that are Gaussian or uniform of width 1.
Kind = Literal["lossless", "gaussian", "uniform"]


def whole(height: int, width: int) -> list[Tile]:
    """The one tile of a picture that is not cut."""
    return [Tile(0, 0, height, width)]


def cut(image_HWC: np.ndarray, tile: Tile) -> np.ndarray:
    """The part of an image that a tile covers, which shares its memory."""
    rows = slice(tile.top, tile.top + tile.height)
    return image_HWC[rows, tile.left : tile.left + tile.width]


def required(image_HWC: np.ndarray) -> np.ndarray:
    """An image, which must be one that the codec takes.

    Raises:
        InputError: it has another type, has no pixels, or has a side of more than 65535 pixels.
    """
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3:
        raise InputError(
            "this codec takes RGB images of 8 bits,"
            f" not {image_HWC.dtype} of shape {'×'.join(map(str, image_HWC.shape))}"
        )
    height, width = image_HWC.shape[:2]
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise InputError(
            f"this codec takes images of 1 to {MAX_SIDE} pixels a side, not {height}×{width}"
        )
    return image_HWC
