"""`glyphs`: digits and capital letters rendered from the fonts inside matplotlib, as grey images.

Nothing is downloaded. A font is either in the split train or in test, so test glyphs have shapes
that were never trained on. Each character of each font has `VIEWS` views, in which it is turned by
up to 12 degrees, scaled by 0.8 to 1, and moved by up to a twelfth of the side; the numbers of a
view are a function of its key. Glyphs are white on black, as in MNIST, drawn at four times the size
and averaged down.

The rows of a split are shuffled (sorted by the hash of their keys). The option `size` is the side
of the images (28 by default, 16 to 128).
"""

from __future__ import annotations

import hashlib
import itertools
import string
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shards.building.pictures import Pictures, pictures
from shards.building.sources import Listed, Source, read_each
from shards.building.writer import NewSample
from shards.errors import ShardError
from shards.info import Transform

CHARACTERS = string.digits + string.ascii_uppercase
FONTS = {
    "train": (
        "DejaVuSans.ttf",
        "DejaVuSans-Bold.ttf",
        "DejaVuSans-BoldOblique.ttf",
        "DejaVuSansMono.ttf",
        "DejaVuSansMono-Bold.ttf",
        "DejaVuSansMono-Oblique.ttf",
        "DejaVuSerif.ttf",
        "DejaVuSerif-Bold.ttf",
        "DejaVuSerif-BoldItalic.ttf",
        "STIXGeneral.ttf",
        "STIXGeneralBol.ttf",
        "STIXGeneralItalic.ttf",
        "cmb10.ttf",
        "cmr10.ttf",
        "cmti10.ttf",
        "cmtt10.ttf",
    ),
    "test": (
        "DejaVuSans-Oblique.ttf",
        "DejaVuSerif-Italic.ttf",
        "STIXGeneralBolIta.ttf",
        "cmss10.ttf",
    ),
}
VIEWS = 16
_MOST_DEGREES = 12.0
_LEAST_SCALE = 0.8
_MOST_SHIFT = 1 / 12
_ENLARGED = 4
# The height of the letters as a share of the side, where the scale is 1.
_HEIGHT = 0.72


class Glyph(NamedTuple):
    """One work item: a view of a character in a font."""

    path: str
    character: str
    view: int
    side: int

    @property
    def key(self) -> str:
        return f"{Path(self.path).stem}-{self.character}-{self.view:02d}"


def glyphs(
    path: Path | None = None, *, size: str | None = None, storage: str | None = None
) -> Source:
    """The source of the glyphs.

    Raises `ShardError` for a path, which it does not take, for a size out of bounds, and where
    matplotlib's fonts are missing.
    """
    if path is not None:
        raise ShardError(f"the source glyphs takes no path ({path}): did you mean `folder`?")
    stored = pictures(size or "28", storage, "png", arrays=True)
    side = stored.square(16, 128, "a glyph", size)
    for file in itertools.chain.from_iterable(FONTS.values()):
        _font(file, side)
    splits = {
        split: sorted(
            itertools.starmap(Glyph, itertools.product(files, CHARACTERS, range(VIEWS), [side])),
            key=lambda glyph: hashlib.sha256(glyph.key.encode()).digest(),
        )
        for split, files in FONTS.items()
    }
    return Source(
        name="glyphs",
        parameters={
            "size": side,
            "storage": stored.storage,
            "fonts": {split: list(files) for split, files in FONTS.items()},
            "characters": CHARACTERS,
            "views": VIEWS,
        },
        transform=Transform(
            size=stored.size,
            geometry="characters drawn at four times the size, turned, scaled and moved at random,"
            " averaged down",
            storage=stored.storage,
        ),
        splits={split: Listed(found) for split, found in splits.items()},
        read=partial(read_each, partial(encode, stored=stored)),
        classes=list(CHARACTERS),
    )


def encode(glyph: Glyph, stored: Pictures) -> NewSample:
    """Render one glyph and store it."""
    grey_HW = render(glyph)
    picture = stored.encode_pixels(np.repeat(grey_HW[..., None], 3, axis=2))
    return NewSample(
        key=glyph.key,
        members={picture.ext: picture.data},
        image_ext=picture.ext,
        width=picture.width,
        height=picture.height,
        label=CHARACTERS.index(glyph.character),
        source=glyph.path,
    )


def render(glyph: Glyph) -> np.ndarray:
    """The grey pixels of a glyph, uint8 [side, side]."""
    digest = hashlib.sha256(glyph.key.encode()).digest()
    turn, scale, right, down = np.frombuffer(digest[:16], ">u4") / 2.0**32
    canvas = glyph.side * _ENLARGED
    image = Image.new("L", (canvas, canvas))
    centre = canvas / 2
    moved = [centre + canvas * _MOST_SHIFT * (2 * share - 1) for share in (right, down)]
    font = _font(glyph.path, glyph.side).font_variant(
        size=round(canvas * _HEIGHT * (_LEAST_SCALE + (1 - _LEAST_SCALE) * scale))
    )
    ImageDraw.Draw(image).text(tuple(moved), glyph.character, fill=255, font=font, anchor="mm")
    angle = _MOST_DEGREES * (2 * float(turn) - 1)
    return np.asarray(image.rotate(angle, Image.Resampling.BICUBIC).reduce(_ENLARGED))


@cache
def _font(file: str, side: int) -> ImageFont.FreeTypeFont:
    package = find_spec("matplotlib")
    if package is None or package.origin is None:
        raise ShardError("the fonts come with matplotlib: run `pip install matplotlib`")
    path = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / file
    try:
        return ImageFont.truetype(str(path), side)
    except OSError:
        raise ShardError(
            f"this matplotlib does not hold the font {path}: run `pip install matplotlib`"
            " --force-reinstall"
        ) from None
