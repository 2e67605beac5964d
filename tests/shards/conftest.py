"""Small sets for the tests of the data floor."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.building.build import build
from shards.reading.reader import ShardSet


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small photo set that no test changes."""
    out = tmp_path_factory.mktemp("sets") / "photos"
    build("photos", out, options={"size": "32"}, shard_size=20, limit=70)
    return out


@pytest.fixture
def photo_set(built: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(built, tmp_path / "photos"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of 12 images of several sizes and formats in two classes, and one loose file."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    for i in range(12):
        folder = root / ("cats" if i % 2 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (20 + i, 30 - i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"a{i:02d}.{'jpg' if i % 3 else 'png'}")
    Image.fromarray(pixels).save(root / "loose.v2.webp", lossless=True)
    return root


@pytest.fixture
def folder_set(images: Path, tmp_path: Path) -> ShardSet:
    options = {"test_fraction": 0.25}
    return build("folder", tmp_path / "set", path=images, options=options, shard_size=5)
