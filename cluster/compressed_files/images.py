"""The pixels of image files, and PNG files that say what they were decoded from."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from gencomp.errors import InputError
from shards.reading import decode
from shards.reading.maps import map_pixels

_MOST_BITS = 16  # a channel; the upper 8 are compressed
_ORIGIN = "gencomp"  # the key of the PNG text that names the stream and the draw of an image


def read(path: Path) -> bytes:
    """The content of a file.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def converted(data: bytes, path: Path, max_pixels: int = decode.MAX_PIXELS) -> decode.Converted:
    """The pixels of an image as every codec takes them, and what was done to the file's picture.

    The rules are those of `shards.reading.decode.converted`.

    Args:
        data: The content of the file.
        path: The file, for messages.
        max_pixels: The number of pixels that are decoded at most.

    Raises:
        InputError: The file is no image that can be read, or one whose colours have no rule.
    """
    try:
        return decode.converted(decode.load(data, max_pixels, _MOST_BITS))
    except decode.NotTaken as error:
        raise InputError(f"{path} is not taken: {error}") from None
    except ValueError as error:
        raise InputError(f"{path} is not a readable image: {error}") from None


def decoded(data: bytes, path: Path) -> np.ndarray:
    """The pixels of an image as every codec takes them, uint8 RGB [H, W, 3]; see `converted`."""
    return converted(data, path).pixels


def maps(
    files: Mapping[str, Path], data: bytes, path: Path, max_pixels: int = decode.MAX_PIXELS
) -> dict[str, np.ndarray]:
    """The maps of an image, integers [H, W] by name.

    Args:
        files: The PNG file of each map.
        data: The content of the image's file.
        path: The image, for messages.
        max_pixels: The number of pixels of a map that are decoded at most.

    Raises:
        InputError: A map cannot be read, or an orientation tag turns the image away from it.
    """
    if files and decode.is_turned(data):
        raise InputError(
            f"{path} has an orientation tag, which turns it away from its maps: save it upright"
        )
    found = {}
    for name, file in files.items():
        content = read(file)
        try:
            found[name] = map_pixels(content, max_pixels)
        except ValueError as error:
            raise InputError(f"{file} is not a readable map of ids: {error}") from None
    return found


def origin(
    codec_id: str, fingerprint: bytes, draw: int, stream: bytes, place: int | None = None
) -> str:
    """A text that names what an image was decoded from: model, draw of the noise, and stream."""
    digest = hashlib.blake2b(stream, digest_size=16).hexdigest()
    picture = "" if place is None else f"picture {place} of "
    return f"{codec_id} {fingerprint.hex()} draw {draw} of {picture}{digest}"


def png(image_HWC: np.ndarray, comes_from: str) -> bytes:
    """The bytes of a PNG file of the pixels, which holds their origin as a text."""
    texts = PngInfo()
    texts.add_text(_ORIGIN, comes_from)
    buffer = BytesIO()
    Image.fromarray(image_HWC).save(buffer, format="PNG", pnginfo=texts)
    return buffer.getvalue()


def is_whole_png(path: Path, comes_from: str) -> bool:
    """Whether a file is an undamaged image of that origin."""
    try:
        with PngImageFile(path) as image:  # without Pillow's limit of pixels
            found = image.info.get(_ORIGIN)
            image.verify()
    except (OSError, SyntaxError, ValueError, struct.error):
        return False
    return bool(found == comes_from)
