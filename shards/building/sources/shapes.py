"""`shapes`: striped shapes on a textured ground, drawn in code, with maps of labels and instances.

Nothing is downloaded. A scene has discs, squares and triangles of random colours, sizes and angles,
each with stripes of its own, so that the labels tell what is where but not how it looks. The ground
is the class 0 and the instance 0; shapes are the instances 1, 2, ... from the back to the front.
The numbers of a scene are a function of its key.

The option `size` is the side of the images (128 by default, 64 to 512).
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shards.building.pictures import Pictures, pictures
from shards.building.sources import Listed, Source, read_each
from shards.building.writer import NewSample
from shards.errors import ShardError
from shards.info import Transform

CLASSES = ("ground", "disc", "square", "triangle")
SCENES = {"train": 480, "test": 40}
_SHAPES = (4, 8)  # the least number of shapes of a scene, and one more than the most
# The mean colour of each class, about which those of shapes are drawn.
_COLOURS = np.array([[112, 128, 104], [206, 84, 70], [70, 104, 196], [222, 186, 74]])
_SPREAD = 40
_STRIPES = 55  # the amplitude of stripes in grey levels
_GROUND = 22


class Drawing(NamedTuple):
    """One work item: a scene."""

    path: str
    side: int


class Scene(NamedTuple):
    """The pixels of a scene, uint8 [side, side, 3], and the ids of classes and instances."""

    image_HWC: np.ndarray
    label_HW: np.ndarray
    instance_HW: np.ndarray


def shapes(
    path: Path | None = None, *, size: str | None = None, storage: str | None = None
) -> Source:
    """The source of the shapes.

    Raises `ShardError` for a path, which it does not take, and for a size out of bounds.
    """
    if path is not None:
        raise ShardError(f"the source shapes takes no path ({path}): did you mean `folder`?")
    stored = pictures(size or "128", storage, "png", arrays=True)
    side = stored.square(64, 512, "a scene", size)
    splits = {
        split: Listed([Drawing(f"{split}-{number:03d}", side) for number in range(count)])
        for split, count in SCENES.items()
    }
    return Source(
        name="shapes",
        parameters={"size": side, "storage": stored.storage, "scenes": SCENES},
        transform=Transform(
            size=stored.size,
            geometry="striped shapes drawn at random places, one value for each pixel",
            storage=stored.storage,
        ),
        splits=splits,
        read=partial(read_each, partial(encode, stored=stored)),
        classes=list(CLASSES),
        maps=["label.png", "instance.png"],
    )


def encode(drawing: Drawing, stored: Pictures) -> NewSample:
    """Draw one scene and store it."""
    scene = draw(drawing)
    picture = stored.encode_pixels(scene.image_HWC)
    return NewSample(
        key=drawing.path,
        members={
            picture.ext: picture.data,
            "label.png": stored.encode_map(scene.label_HW),
            "instance.png": stored.encode_map(scene.instance_HW),
        },
        image_ext=picture.ext,
        width=picture.width,
        height=picture.height,
        label=None,
        source=drawing.path,
    )


def draw(drawing: Drawing) -> Scene:
    """The scene of a work item."""
    seed = int.from_bytes(hashlib.sha256(drawing.path.encode()).digest()[:8], "big")
    numbers = np.random.Generator(np.random.PCG64(seed))
    rows_HW, columns_HW = np.mgrid[: drawing.side, : drawing.side] / drawing.side
    image_HWC = _painted(numbers, 0, rows_HW, columns_HW, _GROUND)
    label_HW = np.zeros(rows_HW.shape, np.uint8)
    instance_HW = np.zeros(rows_HW.shape, np.uint8)
    for instance in range(1, 1 + int(numbers.integers(*_SHAPES))):
        kind = int(numbers.integers(1, len(CLASSES)))
        inside_HW = _inside(numbers, kind, rows_HW, columns_HW)
        paint_HWC = _painted(numbers, kind, rows_HW, columns_HW, _STRIPES)
        image_HWC[inside_HW] = paint_HWC[inside_HW]
        label_HW[inside_HW], instance_HW[inside_HW] = kind, instance
    pixels_HWC = image_HWC + numbers.normal(0, 2, image_HWC.shape)
    return Scene(pixels_HWC.round().clip(0, 255).astype(np.uint8), label_HW, instance_HW)


def _inside(
    numbers: np.random.Generator, kind: int, rows_HW: np.ndarray, columns_HW: np.ndarray
) -> np.ndarray:
    """The pixels of a shape of a class, at a random place, of a random size and angle."""
    row, column = numbers.uniform(0.1, 0.9, 2)
    radius, angle = numbers.uniform(0.12, 0.24), numbers.uniform(0, 2 * np.pi)
    down_HW, right_HW = rows_HW - row, columns_HW - column
    x_HW = np.cos(angle) * right_HW + np.sin(angle) * down_HW
    y_HW = np.cos(angle) * down_HW - np.sin(angle) * right_HW
    if CLASSES[kind] == "disc":
        return x_HW**2 + y_HW**2 < radius**2
    if CLASSES[kind] == "square":
        return np.maximum(abs(x_HW), abs(y_HW)) < 0.85 * radius
    return (y_HW < 0.6 * radius) & (y_HW > 1.9 * abs(x_HW) - 1.2 * radius)


def _painted(
    numbers: np.random.Generator,
    kind: int,
    rows_HW: np.ndarray,
    columns_HW: np.ndarray,
    amplitude: float,
) -> np.ndarray:
    """Stripes of a random direction, distance and colour over all pixels, float64 [H, W, 3]."""
    colour_C = _COLOURS[kind] + numbers.uniform(-_SPREAD, _SPREAD, 3)
    angle, start = numbers.uniform(0, np.pi), numbers.uniform(0, 2 * np.pi)
    waves = 2 * np.pi * numbers.uniform(3, 9)
    along_HW = np.cos(angle) * columns_HW + np.sin(angle) * rows_HW
    return colour_C + amplitude * np.sin(waves * along_HW + start)[..., None]
