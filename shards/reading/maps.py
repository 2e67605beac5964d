"""Maps of the ids of pixels, such as label maps, as files beside their images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shards.errors import ShardError
from shards.reading.decode import MAX_PIXELS, open_png

_NAME = re.compile(r"[a-z][a-z0-9_]*")
# The place of the bit depth in a PNG, and Pillow's factor for grey values of so many bits.
_DEPTH = 24
_STRETCHED = {2: 85, 4: 17}


def parse_maps(words: Sequence[str]) -> dict[str, Path]:
    """The roots of the maps by name, from words such as label=PATH; raises `ShardError`."""
    roots: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or not path or not _NAME.fullmatch(name):
            raise ShardError(
                f"the map {word!r} is not NAME=PATH with a name in small letters, such as"
                " label=LABELS"
            )
        if name in roots:
            raise ShardError(f"the map {name} is named twice")
        roots[name] = Path(path)
    return roots


def map_pixels(data: bytes, max_pixels: int | None = MAX_PIXELS) -> np.ndarray:
    """The ids in a PNG, uint8 or uint16 [H, W]; raises `ValueError` with the reason without ids.

    They are the values of a grey image of 1, 2, 4, 8 or 16 bits, or the places in a palette. A
    file that claims more than `max_pixels` pixels (None: any number) is refused.
    """
    image = open_png(data, max_pixels)
    if image.mode in ("1", "P"):
        return np.asarray(image, dtype=np.uint8)
    if image.mode == "L":  # Pillow stretches values of fewer bits to 0..255
        return np.asarray(image) // _STRETCHED.get(data[_DEPTH], 1)
    if image.mode in ("I", "I;16"):  # older releases of Pillow widen 16 bits to "I"
        return np.asarray(image).astype(np.uint16)
    raise ValueError(f"its mode is {image.mode}, and a map of ids has one channel of 8 or 16 bits")
