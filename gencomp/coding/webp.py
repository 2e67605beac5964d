"""Lossless WebP of an image, without the 20 bytes that say that it is one.

The code is the chunk `VP8L` of a WebP file. Its first 5 bytes hold the size of the image, which is
compared with the one that is expected before anything is decoded.
"""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
from PIL import Image
from PIL.WebPImagePlugin import WebPImageFile

from gencomp.coding.range_coder import damaged

MOST_PIXELS_A_SIDE = 1 << 14

_HEADER = struct.Struct("<4sI4s4sI")
_SIGNATURE = 0x2F
_SIZE_BITS = 14


def encode(image_HWC: np.ndarray) -> bytes:
    """The code of a uint8 image [H, W, 3], whose sides have 1 to 16,384 pixels."""
    buffer = BytesIO()
    image = Image.fromarray(np.ascontiguousarray(image_HWC))
    image.save(buffer, format="WEBP", lossless=True, quality=100, method=6)
    data = buffer.getvalue()
    *_, kind, length = _HEADER.unpack_from(data)
    assert kind == b"VP8L", "an opaque lossless image is a simple file"
    return data[_HEADER.size : _HEADER.size + length]


def decode(code: bytes, height: int, width: int) -> np.ndarray:
    """The uint8 image [height, width, 3] of a code.

    Raises:
        InputError: the code is none of an image of this size.
    """
    if len(code) < 5 or code[0] != _SIGNATURE:
        raise damaged()
    size = int.from_bytes(code[1:5], "little")
    mask = (1 << _SIZE_BITS) - 1
    if (size & mask, size >> _SIZE_BITS & mask) != (width - 1, height - 1):
        raise damaged()
    padded = code + bytes(len(code) % 2)
    data = _HEADER.pack(b"RIFF", len(padded) + 12, b"WEBP", b"VP8L", len(code)) + padded
    try:
        # Not `Image.open`, which warns of pictures that are larger than half of what fits here.
        with WebPImageFile(BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, struct.error):
        raise damaged() from None
