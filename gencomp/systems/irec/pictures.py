"""Pictures as the codec takes them, whole or in tiles."""

from __future__ import annotations

from typing import Literal

import numpy as np

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
