"""Decode the bytes of image files to uint8 RGB arrays."""

from __future__ import annotations

import io
from functools import cache
from types import ModuleType

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = {
    "PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "bmp", "PPM": "ppm", "TIFF": "tif",
    "GIF": "gif",
}  # fmt: skip
EXTENSIONS = frozenset("png jpg jpeg webp bmp ppm pgm pnm tif tiff".split())
# Files with these endings are images as well, but a sample of a tar that has both kinds is read by
# the first kind.
RARE_EXTENSIONS = frozenset("jfif jpe mpo dib pbm gif".split())
# Modes of more than 8 bits: Pillow would clip their values to white instead of scaling them.
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")


def decode(data: bytes, out: np.ndarray | None = None) -> np.ndarray:
    """Decode an image to uint8 [H, W, 3] RGB; alpha is dropped, and grey becomes three channels.

    JPEG files are decoded by simplejpeg if it is installed and gives exactly the pixels of Pillow;
    CMYK files are always decoded by Pillow, whose conversion differs. Orientation tags are not
    applied. If `out` (contiguous) has the image's shape, it receives the image and is returned;
    otherwise it is left alone, and a new array is returned.
    Raises `ValueError` with the reason when the bytes cannot be decoded.
    """
    if data[:3] == b"\xff\xd8\xff" and (fast := _fast_jpeg()) is not None:
        try:
            height, width, space, _ = fast.decode_jpeg_header(data)
            if space in ("YCbCr", "Gray", "RGB"):
                fits = out is not None and out.shape == (height, width, 3)
                image = fast.decode_jpeg(
                    data, fastdct=False, fastupsample=False, buffer=out if fits else None
                )
                return out if out is not None and fits else image
        except ValueError:
            pass  # Pillow has the last word, and the better message
    image = np.asarray(open_rgb(data))
    if out is None or out.shape != image.shape:
        return image
    out[:] = image
    return out


def open_rgb(data: bytes) -> Image.Image:
    """Decode an image to a Pillow image of mode RGB; raises `ValueError` as `decode` does."""
    image = _open(data)
    if image.mode in _DEEP_MODES:
        raise ValueError(f"mode {image.mode} has more than 8 bits a channel: convert it first")
    _load(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def open_any(data: bytes) -> Image.Image:
    """Decode an image to a Pillow image of the file's mode; raises `ValueError` as `decode` does.

    The orientation tag is not applied.
    """
    image = _open(data)
    _load(image)
    return image


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from None


def has_image_ending(name: str) -> bool:
    """Whether a file's name ends as the names of images that can be read do."""
    return name.rpartition(".")[2].lower() in EXTENSIONS | RARE_EXTENSIONS


def image_format(data: bytes) -> str:
    """The format of an image, found by its content, as a file extension: 'png', 'jpg', ..."""
    form = str(_open(data).format)
    # Phones write JPEG files with a second picture behind the first; the first one is decoded.
    return FORMATS["JPEG" if form == "MPO" else form]


def image_size(data: bytes) -> tuple[int, int]:
    """The (width, height) of an image in pixels, from its header alone."""
    return _open(data).size


def _open(data: bytes) -> Image.Image:
    formats = ("PNG",) if data[:4] == b"\x89PNG" else tuple(FORMATS)
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
        if image.format == "GIF" and (frames := getattr(image, "n_frames", 1)) > 1:
            raise ValueError(f"an animation of {frames} frames")
        return image
    except UnidentifiedImageError:
        raise ValueError(f"none of the formats {', '.join(FORMATS)}") from None
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from None


@cache
def _fast_jpeg() -> ModuleType | None:
    """The module simplejpeg if it decodes to the same pixels as Pillow, which is checked once."""
    try:
        import simplejpeg
    except ImportError:
        return None
    ramp = np.arange(37 * 29 * 3, dtype=np.uint32)
    pixels = ((ramp * 2654435761 >> 7) % 256).astype(np.uint8).reshape(29, 37, 3)
    for subsampling in (0, 1, 2):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=70, subsampling=subsampling)
        fast = simplejpeg.decode_jpeg(stream.getvalue(), fastdct=False, fastupsample=False)
        if not np.array_equal(fast, np.asarray(open_rgb(stream.getvalue()))):
            return None
    return simplejpeg
