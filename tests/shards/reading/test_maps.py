"""Maps of ids from PNG files of every kind, and the words that name them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.errors import ShardError
from shards.reading.decode import is_turned
from shards.reading.maps import map_pixels, parse_maps


def grey_png(ids_HW: np.ndarray, depth: int) -> bytes:
    """A grey PNG of so many bits a pixel, written by its specification."""
    height, width = ids_HW.shape
    bits_HWD = (ids_HW[..., None] >> np.arange(depth)[::-1]) & 1
    rows = np.packbits(bits_HWD.reshape(height, -1).astype(np.uint8), axis=1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
    ends = chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(ends)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_ids_of_any_number_of_bits(depth: int) -> None:
    ids_HW = np.random.default_rng(depth).integers(0, 1 << depth, (7, 11)).astype(np.uint16)
    ids_HW[0, :2] = 0, (1 << depth) - 1
    assert np.array_equal(map_pixels(grey_png(ids_HW, depth)), ids_HW)


def test_places_in_a_palette() -> None:
    ids_HW = np.array([[0, 3], [1, 2]], np.uint8)
    image = Image.fromarray(ids_HW, mode="P")
    image.putpalette([value for one in range(4) for value in (9 * one, 0, 255 - one)])
    for bits in (2, 8):
        buffer = io.BytesIO()
        image.save(buffer, "PNG", bits=bits)
        assert np.array_equal(map_pixels(buffer.getvalue()), ids_HW)


def test_orientation_tags() -> None:
    for number in (1, 3):
        tag, buffer = Image.Exif(), io.BytesIO()
        tag[0x0112] = number
        Image.new("RGB", (4, 4)).save(buffer, "JPEG", exif=tag)
        assert is_turned(buffer.getvalue()) == (number != 1)


def test_words() -> None:
    assert parse_maps(["label=a/b=c", "mask=m.png"]) == {
        "label": Path("a/b=c"),
        "mask": Path("m.png"),
    }
    for word in ("label", "label=", "Label=a", "=a"):
        with pytest.raises(ShardError, match="is not NAME=PATH"):
            parse_maps([word])
    with pytest.raises(ShardError, match="is named twice"):
        parse_maps(["a=x", "a=y"])
