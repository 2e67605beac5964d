"""The pixels of image files, and PNG files that say what they were decoded from."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from gencomp.errors import InputError
from shards.reading import decode
from shards.reading.maps import is_turned, map_pixels

_DEEP_GREY = ("PNG", "PPM")  # formats of at most 16 bits, which Pillow may open in mode I
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


def decoded(data: bytes, path: Path) -> np.ndarray:
    """The pixels of an image as every codec takes them, uint8 RGB [H, W, 3].

    - The image is turned upright by the file's orientation tag.
    - Grey becomes three equal channels, and a palette its colours.
    - Of 16 bits a channel, the upper 8 are kept. Images of 32 bits a channel are refused.
    - Transparent pixels are laid over white.
    - CMYK becomes RGB by (255 − ink) · (255 − black) / 255. Colour profiles are not applied.

    Args:
        data: The content of the file.
        path: The file, for messages.

    Raises:
        InputError: The file is no image that can be read, or one whose colours have no such rule.
    """
    try:
        image = decode.open_any(data)
        return _rgb(ImageOps.exif_transpose(image), image.format in _DEEP_GREY)
    except (ValueError, SyntaxError, struct.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a readable image: {error}") from None


def _rgb(image: Image.Image, at_most_16_bits: bool) -> np.ndarray:
    """The colours of an image, uint8 [H, W, 3]; raises `ValueError` for colours without a rule."""
    if image.mode.startswith("I;16") or (image.mode == "I" and at_most_16_bits):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError(
            f"mode {image.mode} has 32 bits a channel, and a codec takes 8 or 16: save it as PNG"
        )
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return np.asarray(image.convert("RGB"))


def maps(files: Mapping[str, Path], data: bytes, path: Path) -> dict[str, np.ndarray]:
    """The maps of an image, integers [H, W] by name.

    Args:
        files: The PNG file of each map.
        data: The content of the image's file.
        path: The image, for messages.

    Raises:
        InputError: A map cannot be read, or an orientation tag turns the image away from it.
    """
    if files and is_turned(data):
        raise InputError(
            f"{path} has an orientation tag, which turns it away from its maps: save it upright"
        )
    found = {}
    for name, file in files.items():
        content = read(file)
        try:
            found[name] = map_pixels(content)
        except ValueError as error:
            raise InputError(f"{file} is not a readable map of ids: {error}") from None
    return found


def pixels(path: Path) -> int:
    """The number of pixels that an image file states; 0 for a file that states none."""
    try:
        with Image.open(path) as image:
            return image.width * image.height
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError):
        return 0


def first_index(files: Iterable[bytes]) -> int:
    """The index of the first of some pictures, from which those of the others count up.

    Sender and receiver derive randomness from it, which no other pictures may share, so it is a
    hash of the files: other files get other indices, and the same ones get the same again.

    Args:
        files: The content of each picture's file.
    """
    digest = hashlib.blake2b(digest_size=8, person=b"index")
    for data in files:
        digest.update(hashlib.blake2b(data).digest())
    return int.from_bytes(digest.digest(), "big") >> 1  # so that counting up stays below 2^64


def origin(
    codec_id: str, fingerprint: bytes, draw: int, stream: bytes, place: int | None = None
) -> str:
    """A text that names what an image was decoded from: model, draw of the noise, and stream."""
    digest = hashlib.blake2b(stream, digest_size=16).hexdigest()
    picture = "" if place is None else f"picture {place} of "
    return f"{codec_id} {fingerprint.hex()} draw {draw} of {picture}{digest}"


def png(image_HWC: np.ndarray, comes_from: str) -> bytes:
    """The bytes of a PNG file of the pixels, which holds their origin as a text."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text(_ORIGIN, comes_from)
    buffer = BytesIO()
    Image.fromarray(image_HWC).save(buffer, format="PNG", pnginfo=texts)
    return buffer.getvalue()


def is_whole_png(path: Path, comes_from: str) -> bool:
    """Whether a file is an undamaged image of that origin."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            found = image.info.get(_ORIGIN)
            image.verify()
    except (OSError, SyntaxError, ValueError, struct.error):
        return False
    return bool(found == comes_from)
