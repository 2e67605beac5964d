"""Local networks on large images: window by window, with what each window needs to see around it.

An image is a grid of cells. The value of a local network at a cell depends on the cells within some
distance of it. So it is computed for a square of cells from these and the ones around, and what the
ones around give is left out. The result is that of the whole image, but for the order of sums, and
depends on the image's size alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor


def in_windows(
    function: Callable[[slice, slice], Tensor],
    height: int,
    width: int,
    scale: int,
    side: int | None,
    reach: int,
) -> Tensor:
    """What a function gives for all cells of a grid, [B, C, scale·height, scale·width].

    Args:
        function: maps the rows and the columns of a window of cells to [B, C, ...], with `scale`
            pixels for a cell in either direction.
        height, width: the number of rows and columns of cells.
        scale: the number of pixels of a cell in the result.
        side: the height and width in cells of the squares that are computed at once; None for all
            cells.
        reach: the distance in cells within which the function looks.
    """
    if side is None or max(height, width) <= side:
        return function(slice(0, height), slice(0, width))
    found = None
    for rows, seen_rows in _cut(height, side, reach):
        for columns, seen_columns in _cut(width, side, reach):
            part = function(seen_rows, seen_columns)
            if found is None:
                found = part.new_empty(*part.shape[:2], scale * height, scale * width)
            found[:, :, _pixels(rows, scale), _pixels(columns, scale)] = part[
                :,
                :,
                _pixels(rows, scale, seen_rows.start),
                _pixels(columns, scale, seen_columns.start),
            ]
    assert found is not None
    return found


def _cut(count: int, side: int, reach: int) -> Iterator[tuple[slice, slice]]:
    """The cells of each part along one direction, and those that it sees."""
    for start in range(0, count, side):
        stop = min(count, start + side)
        yield slice(start, stop), slice(max(0, start - reach), min(count, stop + reach))


def _pixels(cells: slice, scale: int, first: int = 0) -> slice:
    """The pixels of cells, counted from the pixels of the first one."""
    return slice(scale * (cells.start - first), scale * (cells.stop - first))
