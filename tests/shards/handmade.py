"""Shard sets of samples that a test writes out by hand."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from shards.building.build import build_source
from shards.building.sources import Listed, Source
from shards.building.writer import NewSample
from shards.info import Transform
from shards.reading.reader import ShardSet


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def noise(seed: int, height: int = 6, width: int = 9) -> np.ndarray:
    """uint8 [height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sample(
    key: str,
    pixels: np.ndarray,
    label: int | None = None,
    maps: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> NewSample:
    """A sample with a PNG, its maps by name, and its label as `cls`."""
    members = {"png": png(pixels)} | {f"{name}.png": png(found) for name, found in maps.items()}
    if label is not None:
        members["cls"] = str(label).encode()
    height, width = pixels.shape[:2]
    return NewSample(key, members, "png", width, height, label, f"{key}.png")


def make_set(
    out: Path,
    splits: dict[str, list[NewSample]],
    shard_size: int = 5,
    classes: Sequence[str] = (),
) -> ShardSet:
    """Write the samples as a set."""
    source = Source(
        name="handmade",
        parameters={},
        transform=Transform(size=None, geometry="none", storage="png"),
        splits={name: Listed(samples) for name, samples in splits.items()},
        read=iter,
        classes=list(classes),
    )
    return build_source(source, out, shard_size=shard_size, processes=1)
