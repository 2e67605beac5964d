"""Images of any size are cut into square tiles and joined again.

The last column and the last row of the image are repeated to the right and downwards until both
sides are multiples of the tile's side; then the image is cut into tiles, row by row. Joining the
tiles drops what was added.
"""

from __future__ import annotations

import numpy as np


def tile_counts(height: int, width: int, side: int) -> tuple[int, int]:
    """The numbers of rows and of columns of tiles that cover an image."""
    return -(-height // side), -(-width // side)


def split(image_HWC: np.ndarray, side: int) -> np.ndarray:
    """Cut an image [H, W, C] into tiles [T, side, side, C]."""
    height, width, channels = image_HWC.shape
    rows, columns = tile_counts(height, width, side)
    added = ((0, rows * side - height), (0, columns * side - width), (0, 0))
    grid = np.pad(image_HWC, added, mode="edge").reshape(rows, side, columns, side, channels)
    return grid.swapaxes(1, 2).reshape(-1, side, side, channels)


def join(tiles_TSSC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Join tiles to the image [H, W, C]; the inverse of `split`."""
    _, side, _, channels = tiles_TSSC.shape
    rows, columns = tile_counts(height, width, side)
    grid = tiles_TSSC.reshape(rows, columns, side, side, channels).swapaxes(1, 2)
    return np.ascontiguousarray(
        grid.reshape(rows * side, columns * side, channels)[:height, :width]
    )
