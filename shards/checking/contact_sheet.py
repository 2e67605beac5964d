"""One PNG that shows what a shard set holds: some images of every split, with captions."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shards.errors import ShardError
from shards.reading.reader import ShardSet, Split

CELL = 128  # the length of the longer side of a shown image, in pixels
COLUMNS = 8
_GAP = 8
_LINE = 14
_CAPTION = 2 * _LINE
_FONT_SIZE = 11
_PAPER, _INK, _GREY = (255, 255, 255), (20, 20, 20), (110, 110, 110)


def contact_sheet(shard_set: ShardSet, path: Path, images: int = 32) -> None:
    """Write the PNG file `path`, which shows `images` images of each split.

    The images are evenly spaced over the rows of the split. Raises `ShardError` when `path` exists,
    cannot be written or does not end in `.png`, when `images` is not positive, and for a corrupt
    sample.
    """
    check_sheet(path, images)
    sheet = draw_sheet(shard_set, images)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        sheet.save(temporary, "PNG")
        os.replace(temporary, path)
    except OSError as error:
        raise ShardError(f"the contact sheet {path} cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def check_sheet(path: Path, images: int) -> None:
    """Raise `ShardError` for a sheet that could not be written, before any work is done."""
    if path.suffix.lower() != ".png":
        raise ShardError(f"the contact sheet {path} must be a .png file")
    if path.exists():
        raise ShardError(f"{path} exists: choose another file for the contact sheet")
    if not path.parent.is_dir():
        raise ShardError(f"there is no directory {path.parent} for the contact sheet")
    if images < 1:
        raise ShardError(f"a contact sheet needs at least 1 image of a split, not {images}")


def draw_sheet(shard_set: ShardSet, images: int) -> Image.Image:
    """The sheet as a Pillow image of mode RGB; its size is `sheet_size`."""
    chosen = {name: evenly(count, images) for name, count in shard_set.splits.items()}
    sheet = Image.new("RGB", sheet_size([len(rows) for rows in chosen.values()]), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    y = _GAP
    for name, rows in chosen.items():
        split = shard_set.split(name)
        draw.text((_GAP, y), f"{name}: {len(rows)} of {len(split)} samples", _INK, font)
        y += _LINE
        for place, row in enumerate(rows.tolist()):
            line, column = divmod(place, COLUMNS)
            corner = (_GAP + column * (CELL + _GAP), y + line * _cell_height())
            _draw_sample(sheet, draw, font, corner, shard_set, split, row)
        y += _lines(len(rows)) * _cell_height() + _GAP
    return sheet


def sheet_size(counts: list[int]) -> tuple[int, int]:
    """The (width, height) in pixels of a sheet that shows `counts` images of the splits."""
    columns = min(COLUMNS, max(counts, default=1) or 1)
    parts = [_LINE + _lines(count) * _cell_height() + _GAP for count in counts]
    return _GAP + columns * (CELL + _GAP), _GAP + sum(parts)


def evenly(length: int, count: int) -> np.ndarray:
    """The numbers of `count` rows, evenly spaced over `range(length)`, or all of them if fewer."""
    count = min(length, count)
    return (2 * np.arange(count, dtype=np.int64) + 1) * length // (2 * max(count, 1))


def _lines(count: int) -> int:
    return -(-count // COLUMNS)


def _cell_height() -> int:
    return CELL + _CAPTION + _GAP


def _draw_sample(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    corner: tuple[int, int],
    shard_set: ShardSet,
    split: Split,
    row: int,
) -> None:
    sample = split.read(row)
    height, width = sample.image.shape[:2]
    picture = Image.fromarray(sample.image)
    scale = CELL / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # Small pictures are shown pixel by pixel; large ones are averaged down.
    picture = picture.resize(
        size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    )
    x, y = corner
    sheet.paste(picture, (x + (CELL - size[0]) // 2, y + (CELL - size[1]) // 2))
    what = f"{width}x{height}"
    if sample.label is not None:
        what += f"  {_class(shard_set.info.classes, sample.label)}"
    for line, (text, colour) in enumerate(((sample.key, _INK), (what, _GREY))):
        draw.text((x, y + CELL + line * _LINE), _fitted(text, font), colour, font)


def _class(classes: list[str], label: int) -> str:
    return classes[label] if 0 <= label < len(classes) else str(label)


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text in ASCII, which the font surely has; if it is too wide, its middle is left out."""
    text = text.encode("ascii", "replace").decode()
    if font.getlength(text) <= CELL:
        return text
    for kept in range(len(text) - 1, 0, -1):
        shorter = f"{text[: kept // 2]}...{text[len(text) - (kept - kept // 2) :]}"
        if font.getlength(shorter) <= CELL:
            return shorter
    return ""
