"""How tests look at the pixels that a source stores."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from shards.building.sources import Source
from shards.building.writer import NewSample
from tests.shards.building.sources.blocks import samples


def pixels(sample: NewSample) -> np.ndarray:
    """The pixels of a stored sample, grey or colour as it is stored."""
    with Image.open(io.BytesIO(sample.members[sample.image_ext])) as image:
        assert (image.width, image.height) == (sample.width, sample.height)
        return np.asarray(image)


def check_arrays(source: Source, expected: dict[str, tuple[np.ndarray, list[int]]]) -> None:
    """The splits hold exactly these images and labels, in their order, under numbered keys."""
    found = samples(source, 7)
    assert list(found) == list(expected)
    for split, (images, labels) in expected.items():
        assert len(found[split]) == len(images) == len(labels)
        for number, sample in enumerate(found[split]):
            assert sample.key == f"{split}-{number:07d}"
            label = labels[number]
            assert (sample.label, sample.members["cls"]) == (label, str(label).encode())
            assert np.array_equal(pixels(sample), images[number])
