"""Sheets of images, in columns of tiles under headings.

Every pixel of an image is enlarged by the same integer: in a PNG it is a square of `scale` ×
`scale` pixels of exactly its colour. A PDF holds the images as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gencomp.errors import InputError
from gencomp.figures.style import INK, MUTED, style

# Sizes in pixels. A heading has two lines, a title one line, and each remark one line.
_MARGIN, _GAP, _GROUP_GAP = 16, 2, 14
_LINE, _TITLE, _LABEL = 18, 26, 96
_PIXELS_PER_INCH = 100
_TITLE_SIZE, _REMARK_SIZE, _HEADING_SIZE, _SMALLEST_SIZE = 11.0, 8.5, 9.0, 5.0  # points
_PIXELS_PER_LETTER = 0.62 * _PIXELS_PER_INCH / 72  # for each point of the font size


@dataclass(frozen=True)
class Column:
    """The tiles under one heading.

    Attributes:
        heading: the first line of the heading.
        remark: the second line of the heading, in grey.
        tiles: the images of each row from left to right, uint8 [H, W, 3]; None leaves a place
            empty.
    """

    heading: str
    remark: str
    tiles: Sequence[Sequence[np.ndarray | None]]


@dataclass(frozen=True)
class Sheet:
    """A figure of images.

    Attributes:
        title: the title of the sheet.
        remarks: the lines under the title.
        columns: the columns from left to right, each with the same number of rows.
        labels: the labels of the rows, or none.
    """

    title: str
    remarks: Sequence[str]
    columns: Sequence[Column]
    labels: Sequence[str] = ()


def draw(sheet: Sheet, scale: int = 2) -> Figure:
    """Draw a sheet.

    Args:
        sheet: a sheet with one or more images.
        scale: the side, in pixels, of the square that each pixel of an image becomes.

    Raises:
        InputError: the images have different sizes, or the columns different numbers of rows.
    """
    height, width = _tile(sheet)
    height, width = height * scale, width * scale
    rows = len(sheet.columns[0].tiles)
    left = _MARGIN + (_LABEL if sheet.labels else 0)
    starts, right = _starts(sheet, width, left)
    head = _TITLE + _LINE * len(sheet.remarks) + 12
    top = head + 2 * _LINE + 4
    texts = ((sheet.title, _TITLE_SIZE), *((line, _REMARK_SIZE) for line in sheet.remarks))
    widest = max(len(text) * size * _PIXELS_PER_LETTER for text, size in texts)
    total_width = max(right, _MARGIN + round(widest)) + _MARGIN
    total_height = top + rows * (height + _GAP) - _GAP + _MARGIN
    with style():
        figure = Figure(
            figsize=(total_width / _PIXELS_PER_INCH, total_height / _PIXELS_PER_INCH),
            dpi=_PIXELS_PER_INCH,
        )
        page = _Page(figure, total_width, total_height)
        page.write(_MARGIN, 10, sheet.title, size=_TITLE_SIZE, weight="bold")
        for number, line in enumerate(sheet.remarks):
            page.write(_MARGIN, 10 + _TITLE + _LINE * number, line, size=_REMARK_SIZE, color=MUTED)
        for label, row in zip(sheet.labels, range(rows), strict=False):
            middle = top + row * (height + _GAP) + height / 2
            page.write(_MARGIN, middle, label, size=_REMARK_SIZE, va="center")
        for start, column in zip(starts, sheet.columns, strict=True):
            across = _across(column) * (width + _GAP) - _GAP
            size = _heading_size(column, across)
            page.write(start + across / 2, head, column.heading, size=size, ha="center")
            page.write(
                start + across / 2,
                head + _LINE,
                column.remark,
                0.9 * size,
                color=MUTED,
                ha="center",
            )
            for row, tiles in enumerate(column.tiles):
                for place, image in enumerate(tiles):
                    if image is not None:
                        x, y = start + place * (width + _GAP), top + row * (height + _GAP)
                        page.place(x, y, width, height, image)
    return figure


class _Page:
    """A figure with coordinates in pixels from its upper left corner."""

    def __init__(self, figure: Figure, width: int, height: int) -> None:
        self.figure, self.width, self.height = figure, width, height

    def write(self, x: float, y: float, text: str, size: float, **look: Any) -> None:
        options: dict[str, Any] = {"va": "top", "color": INK, **look}
        self.figure.text(x / self.width, 1 - y / self.height, text, fontsize=size, **options)

    def place(self, x: int, y: int, width: int, height: int, image_HWC: np.ndarray) -> None:
        bottom = self.height - y - height
        axes = self.figure.add_axes(
            (x / self.width, bottom / self.height, width / self.width, height / self.height)
        )
        axes.imshow(image_HWC, interpolation="none", aspect="auto", resample=False)
        axes.set_axis_off()


def _tile(sheet: Sheet) -> tuple[int, int]:
    """The height and the width of all images."""
    shapes = {
        image.shape
        for column in sheet.columns
        for tiles in column.tiles
        for image in tiles
        if image is not None
    }
    if len(shapes) != 1:
        said = ", ".join(f"{h}×{w}" for h, w, _ in sorted(shapes)) or "none"
        raise InputError(f"a sheet needs images of one size, not {said}")
    if len({len(column.tiles) for column in sheet.columns}) != 1:
        raise InputError("the columns of a sheet must have the same number of rows")
    ((height, width, _),) = shapes
    return height, width


def _starts(sheet: Sheet, width: int, left: int) -> tuple[list[int], int]:
    """The left edge of each column, and the right edge of the last column."""
    starts, x = [], left
    for column in sheet.columns:
        starts.append(x)
        x += _across(column) * (width + _GAP) - _GAP + _GROUP_GAP
    return starts, x - _GROUP_GAP


def _across(column: Column) -> int:
    return max(len(tiles) for tiles in column.tiles)


def _heading_size(column: Column, across: int) -> float:
    """The font size, in points, at which both lines of the heading fit above the column."""
    letters = max(len(column.heading), 0.9 * len(column.remark), 1)
    return float(np.clip(across / letters / _PIXELS_PER_LETTER, _SMALLEST_SIZE, _HEADING_SIZE))
