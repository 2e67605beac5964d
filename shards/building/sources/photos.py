"""`photos`: crops of the colour photographs inside the scikit-image wheel; nothing is downloaded.

Each photograph is cut on a fixed grid (crops overlap by three quarters) at its own scale, and also
after averaging it down to a half and to a third. A photograph is either in the split train or in
test; the two views of the motorcycle are one scene and stay together. A crop is dropped when the
standard deviation of its grey values (the means of R, G and B) is below 6 of 255 levels, which
drops clear sky.

The rows of a split are shuffled (sorted by the hash of their keys), so that the first N of them
cover all the photographs, scales and places, whatever N is.

The options are `size`, the side of the crops (64 by default, 8 to 256), and `storage` (png by
default).
"""

from __future__ import annotations

import hashlib
import itertools
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from shards.building.pictures import Pictures, pictures
from shards.building.sources import Listed, Source, read_each
from shards.building.writer import NewSample
from shards.errors import ShardError
from shards.info import Transform

PHOTOGRAPHS = {
    "train": (
        "astronaut.png",
        "chelsea.png",
        "motorcycle_left.png",
        "motorcycle_right.png",
        "rocket.jpg",
    ),
    "test": ("coffee.png",),
}
REDUCTIONS = (1, 2, 3)
LEAST_DEVIATION = 6.0


class Crop(NamedTuple):
    """One work item: the square at (x, y) of a photograph that is reduced `reduction` times."""

    path: str
    reduction: int
    y: int
    x: int
    size: int

    @property
    def key(self) -> str:
        return f"{Path(self.path).stem}-d{self.reduction}-y{self.y:04d}-x{self.x:04d}"


def photos(
    path: Path | None = None, *, size: str | None = None, storage: str | None = None
) -> Source:
    """The source of the crops.

    Raises `ShardError` for a path, which it does not take, and for a size out of bounds.
    """
    if path is not None:
        raise ShardError(f"the source photos takes no path ({path}): did you mean `folder`?")
    stored = pictures(size or "64", storage, "png", arrays=True)
    side = stored.square(8, 256, "a photo crop", size)
    splits = {
        split: sorted(
            itertools.chain.from_iterable(
                _grid(file, reduction, side) for file in files for reduction in REDUCTIONS
            ),
            key=lambda crop: hashlib.sha256(crop.key.encode()).digest(),
        )
        for split, files in PHOTOGRAPHS.items()
    }
    return Source(
        name="photos",
        parameters={
            "size": side,
            "storage": stored.storage,
            "photographs": {split: list(files) for split, files in PHOTOGRAPHS.items()},
            "reductions": list(REDUCTIONS),
            "stride": side // 4,
            "least_deviation": LEAST_DEVIATION,
        },
        transform=Transform(
            size=stored.size,
            geometry="crops on a grid of a quarter crop, from the photograph averaged down 1, 2 "
            "and 3 times",
            storage=stored.storage,
        ),
        splits={split: Listed(crops) for split, crops in splits.items()},
        read=partial(read_each, partial(encode, stored=stored)),
    )


def encode(crop: Crop, stored: Pictures) -> NewSample | None:
    """Cut one crop and store it; returns None when the crop is almost constant."""
    box = (crop.x, crop.y, crop.x + crop.size, crop.y + crop.size)
    pixels = np.asarray(_reduced(crop.path, crop.reduction).crop(box))
    if pixels.astype(np.float64).mean(axis=2).std() < LEAST_DEVIATION:
        return None
    picture = stored.encode_pixels(pixels)
    return NewSample(
        key=crop.key,
        members={picture.ext: picture.data},
        image_ext=picture.ext,
        width=picture.width,
        height=picture.height,
        label=None,
        source=crop.path,
    )


def _grid(file: str, reduction: int, size: int) -> list[Crop]:
    width, height = _reduced(file, reduction).size
    stride = size // 4
    return [
        Crop(file, reduction, y, x, size)
        for y in range(0, height - size + 1, stride)
        for x in range(0, width - size + 1, stride)
    ]


@cache
def _reduced(file: str, reduction: int) -> Image.Image:
    """A photograph, averaged over squares of `reduction` pixels (integer arithmetic in Pillow)."""
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise ShardError("the photographs come with scikit-image: run `pip install scikit-image`")
    path = Path(package.origin).parent / "data" / file
    try:
        with Image.open(path) as image:
            return image.convert("RGB").reduce(reduction)
    except OSError:
        raise ShardError(
            f"this scikit-image does not hold the photograph {path}: install scikit-image 0.26"
        ) from None
