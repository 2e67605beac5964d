"""The glyphs of matplotlib's fonts: what is drawn, and that each font is in one split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import shards
from shards.building.build import build
from shards.building.sources import glyphs
from shards.building.sources.glyphs import CHARACTERS, FONTS, VIEWS, Glyph
from shards.errors import ShardError


def test_every_font_and_character_is_there_once_a_view() -> None:
    source = glyphs.glyphs()
    for split, files in FONTS.items():
        items = source.splits[split].block(0, len(source.splits[split]))
        assert len(items) == len(set(items)) == len(files) * len(CHARACTERS) * VIEWS
        assert {item.path for item in items} == set(files)
    assert not set(FONTS["train"]) & set(FONTS["test"])
    first = source.splits["train"].block(0, 500)
    assert len({item.character for item in first}) == len(CHARACTERS)
    assert len({item.path for item in first}) == len(FONTS["train"])


@pytest.mark.parametrize("side", [16, 28, 64])
def test_what_is_drawn(side: int) -> None:
    """Every glyph has black corners, white strokes, and its ink within the image."""
    for file in (*FONTS["train"], *FONTS["test"]):
        shapes = set()
        for character in CHARACTERS:
            image = glyphs.render(Glyph(file, character, 0, side))
            assert image.shape == (side, side) and image.dtype == np.uint8
            assert image.max() > 120
            assert 0.01 < (image / 255).mean() < 0.45
            edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
            assert (edge > 60).mean() < 0.1
            shapes.add(image.tobytes())
        assert len(shapes) == len(CHARACTERS)


def test_views_differ_and_repeat() -> None:
    views = [Glyph("cmr10.ttf", "R", view, 28) for view in range(VIEWS)]
    images = [glyphs.render(view).tobytes() for view in views]
    assert len(set(images)) == VIEWS
    assert images == [glyphs.render(view).tobytes() for view in views]


def test_the_built_set(tmp_path: Path) -> None:
    build("glyphs", tmp_path / "set", limit=60, shard_size=40, processes=1)
    split = shards.open_set(tmp_path / "set").split("test")
    assert len(split) == 60
    sample = split.read(7)
    grey = sample.image[..., 0]
    assert sample.image.shape == (28, 28, 3) and (sample.image == grey[..., None]).all()
    item = glyphs.glyphs().splits["test"].block(7, 8)[0]
    assert np.array_equal(grey, glyphs.render(item))
    assert sample.label == CHARACTERS.index(item.character)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": Path("x")}, "takes no path"),
        ({"size": "8"}, "16 to 128 pixels, not 8"),
        ({"size": "28x32"}, "16 to 128 pixels, not 28x32"),
    ],
)
def test_refusals(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ShardError, match=message):
        glyphs.glyphs(**arguments)
