"""Sheets of images: the file holds exactly the pixels it was given."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from gencomp.errors import InputError
from gencomp.figures import tiles
from gencomp.figures.style import encode


def noise(rows: int, columns: int, side: int = 16) -> list[list[np.ndarray | None]]:
    numbers = np.random.default_rng(0)
    shape = (side, side, 3)
    return [
        [numbers.integers(0, 256, shape, dtype=np.uint8) for _ in range(columns)]
        for _ in range(rows)
    ]


def sheet(*columns: list[list[np.ndarray | None]], labels: tuple[str, ...] = ()) -> tiles.Sheet:
    made = [tiles.Column(f"{n} bpp", "16 bits", column) for n, column in enumerate(columns)]
    return tiles.Sheet("Images", ["a line"], made, labels)


def pixels(drawn: tiles.Sheet, scale: int) -> np.ndarray:
    file = encode(tiles.draw(drawn, scale), "png")
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def places(page_HWC: np.ndarray, tile_HWC: np.ndarray) -> list[tuple[int, int]]:
    """The places at which a tile stands on the page, pixel by pixel."""
    height, width, _ = tile_HWC.shape
    corners = np.argwhere((page_HWC == tile_HWC[0, 0]).all(-1))
    return [
        (int(y), int(x))
        for y, x in corners
        if np.array_equal(page_HWC[y : y + height, x : x + width], tile_HWC)
    ]


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_every_pixel_becomes_a_square_of_its_colour(scale: int) -> None:
    columns = noise(3, 1), noise(3, 2, side=16)
    page = pixels(sheet(*columns, labels=("one", "two", "three")), scale)
    first_column = []
    for column in columns:
        for row in column:
            for tile in row:
                assert tile is not None
                found = places(page, np.kron(tile, np.ones((scale, scale, 1), dtype=np.uint8)))
                assert found, "a tile was blurred or moved by part of a pixel"
                first_column += found
    assert len({x for _, x in first_column}) == 3
    assert len({y for y, _ in first_column}) == 3


def test_an_empty_place_stays_white() -> None:
    column = noise(2, 2)
    column[1][1] = None
    page = pixels(sheet(column), 1)
    ((y, x),) = places(page, column[1][0])  # type: ignore[arg-type]
    assert (page[y : y + 16, x + 17 : x + 33] == 255).all()


def test_texts_stay_on_the_page_beside_small_images() -> None:
    """A long title widens the page; headings shrink to their columns."""
    drawn = sheet(noise(1, 1), noise(1, 1))
    long = tiles.Sheet(
        "A title that is much wider than two small images", ["x" * 90], drawn.columns
    )
    figure = tiles.draw(long, 1)
    FigureCanvasAgg(figure).draw()
    page = figure.bbox
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= page.x1 and box.y0 >= 0 and box.y1 <= page.y1, text


def test_a_pdf_keeps_the_images_as_they_are() -> None:
    """They are not enlarged: a side has 16 pixels whatever the scale."""
    file = encode(tiles.draw(sheet(noise(1, 1)), 4), "pdf")
    assert file.startswith(b"%PDF")
    assert b"/Width 16" in file and b"/Height 16" in file


def test_the_same_sheet_is_the_same_file() -> None:
    for format in ("png", "pdf"):
        one, other = (encode(tiles.draw(sheet(noise(1, 2)), 1), format) for _ in range(2))
        assert one == other


def test_images_of_different_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="one size, not 8×8, 16×16"):
        tiles.draw(sheet(noise(1, 1), noise(1, 1, side=8)))


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="same number of rows"):
        tiles.draw(sheet(noise(1, 1), noise(2, 1)))
