"""Tiles: they cover the image, continue its edge, and go back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gencomp.coding.tiles import join, split, tile_counts

sides = st.integers(1, 40)


@given(sides, sides, st.integers(1, 16))
def test_there_and_back(height: int, width: int, side: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    tiles = split(image, side)
    rows, columns = tile_counts(height, width, side)
    assert tiles.shape == (rows * columns, side, side, 3) and tiles.dtype == np.uint8
    assert (rows - 1) * side < height <= rows * side
    assert (columns - 1) * side < width <= columns * side
    assert np.array_equal(join(tiles, height, width), image)


def test_order_and_edges() -> None:
    image = np.arange(3 * 5).reshape(3, 5, 1)
    tiles = split(image, 2)[..., 0]
    assert tiles.tolist() == [
        [[0, 1], [5, 6]],
        [[2, 3], [7, 8]],
        [[4, 4], [9, 9]],
        [[10, 11], [10, 11]],
        [[12, 13], [12, 13]],
        [[14, 14], [14, 14]],
    ]


@pytest.mark.parametrize("size", [(64, 64), (128, 64)])
def test_nothing_is_added_to_whole_tiles(size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert np.array_equal(np.concatenate(list(split(image, 64))), image)
