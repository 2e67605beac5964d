"""Maps of ids in colours."""

from __future__ import annotations

import colorsys

import numpy as np

# Hues of consecutive ids are this far apart, so that no few of them are alike.
_GOLDEN = 0.618033988749895
_GROUND = (64, 64, 64)  # the colour of the id 0


def coloured(map_HW: np.ndarray) -> np.ndarray:
    """The map with a colour for each id, uint8 [H, W, 3]; an id has one colour in all maps."""
    ids, places = np.unique(map_HW, return_inverse=True)
    return np.array([_colour(one) for one in ids.tolist()], np.uint8)[places.reshape(map_HW.shape)]


def _colour(number: int) -> tuple[int, ...]:
    if number == 0:
        return _GROUND
    value = 0.95 if number % 2 else 0.75
    rgb = colorsys.hsv_to_rgb(number * _GOLDEN % 1.0, 0.65, value)
    return tuple(round(255 * part) for part in rgb)
