"""The contact sheet decodes, has the stated size and shows the images that it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.checking.contact_sheet import (
    CELL,
    COLUMNS,
    contact_sheet,
    draw_sheet,
    evenly,
    sheet_size,
)
from shards.errors import ShardError
from shards.reading.reader import ShardSet, open_set
from tests.shards.handmade import make_set, noise, sample


@pytest.fixture
def handmade(tmp_path: Path) -> ShardSet:
    train = [sample(f"long/path/of/a/key/{i:04d}", noise(i, 8, 16), label=i % 3) for i in range(20)]
    odd = [sample("größe-日本", noise(99, 300, 200)), sample("one", noise(98, 1, 400), label=7)]
    return make_set(tmp_path / "set", {"train": train, "test": odd}, classes=["cat", "dog"])


def test_size_and_content(handmade: ShardSet, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    contact_sheet(handmade, path, images=10)
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", sheet_size([10, 2]))
        assert image.size == (8 + COLUMNS * (CELL + 8), 8 + 2 * (14 + 8) + 3 * (CELL + 28 + 8))
        pixels = np.asarray(image)
    # 8x16 is shown eight times larger, in the middle of its cell, pixel by pixel.
    first = handmade.split("train").image(int(evenly(20, 10)[0]))
    shown = pixels[8 + 14 + 32 : 8 + 14 + 32 + 64, 8 : 8 + CELL]
    assert np.array_equal(shown, first.repeat(8, axis=0).repeat(8, axis=1))
    assert list(tmp_path.glob(".*")) == []


def test_it_is_the_same_each_time(built: Path) -> None:
    first, second = (draw_sheet(open_set(built), 9) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert first.size == sheet_size([9, 9])


def test_evenly() -> None:
    assert evenly(10, 20).tolist() == list(range(10))
    assert evenly(10, 1).tolist() == [5]
    assert evenly(100, 4).tolist() == [12, 37, 62, 87]
    assert evenly(0, 4).tolist() == []
    assert evenly(3_000_000, 32).max() < 3_000_000


@pytest.mark.parametrize(
    ("name", "images", "said"),
    [
        ("sheet.jpg", 4, "must be a .png file"),
        ("there.png", 4, "exists"),
        ("no/sheet.png", 4, "no directory"),
        ("sheet.png", 0, "at least 1"),
    ],
)
def test_refusals(built: Path, tmp_path: Path, name: str, images: int, said: str) -> None:
    (tmp_path / "there.png").touch()
    with pytest.raises(ShardError, match=said):
        contact_sheet(open_set(built), tmp_path / name, images)
    assert (tmp_path / "there.png").stat().st_size == 0


def test_a_directory_that_cannot_be_written(built: Path) -> None:
    with pytest.raises(ShardError, match="cannot be written"):
        contact_sheet(open_set(built), Path("/proc/sheet.png"))
