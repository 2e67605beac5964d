"""Decode the bytes of image files to uint8 RGB arrays."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from shards.reading.image_headers import DAMAGE, Header, header, orientation, quiet

EXTENSIONS = frozenset("png jpg jpeg webp bmp ppm pgm pnm tif tiff".split())
# Files with these endings are images as well, but a sample of a tar that has both kinds is read by
# the first kind.
RARE_EXTENSIONS = frozenset("jfif jpe mpo dib pbm gif".split())
MAX_PIXELS = 2**28  # 268 megapixels: three bytes a pixel are 0.8 GB

# What was done to a picture that is not RGB of 8 bits, upright and opaque; people read these.
LAID_OVER_WHITE = "transparent pixels were laid over white"
UPPER_BITS_KEPT = "of more than 8 bits a channel the upper 8 were kept"
TAKEN_AS_STORED = "the orientation tag could not be read, so the picture was taken as stored"
FIRST_TAKEN = "the first picture of a JPEG file that holds several was taken"

# What reading leaves out of files that were indexed as they are.
ALPHA_DROPPED = "transparent pixels show the colours that they hide"
FIRST_SHOWN = "the first of several pages or frames is shown"

_FILES: dict[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "WEBP": WebPImageFile,
    "BMP": BmpImageFile,
    "PPM": PpmImageFile,
    "TIFF": TiffImageFile,
    "GIF": GifImageFile,
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_GREY_STEPS = {2: 85, 4: 17}  # Pillow's factors for grey values of a PNG of so many bits


class NotTaken(ValueError):
    """A sound image file of a kind that is not taken; the message says which and what to do."""


class TooLarge(NotTaken):
    """An image file that states more pixels than are decoded."""


class Loaded(NamedTuple):
    """The one picture of a file: its header, and Pillow's image in a mode of the file."""

    header: Header
    image: Image.Image


class Converted(NamedTuple):
    """A picture as uint8 RGB [H, W, 3], and what was done to it, in the words of this module."""

    pixels: np.ndarray
    done: tuple[str, ...]


def decode(
    data: bytes, out: np.ndarray | None = None, max_pixels: int | None = MAX_PIXELS
) -> np.ndarray:
    """Decode an image to uint8 [H, W, 3] RGB; alpha is dropped, and grey becomes three channels.

    JPEG files are decoded by simplejpeg if it is installed and gives exactly the pixels of Pillow;
    CMYK files are always decoded by Pillow, whose conversion differs. Orientation tags are not
    applied, and of several pages or frames the first is decoded. If `out` (contiguous) has the
    image's shape, it receives the image and is returned; otherwise it is left alone, and a new
    array is returned. Raises `ValueError` with the reason when the bytes cannot be decoded, have
    more than 8 bits a channel, or claim more than `max_pixels` pixels (None: any number).
    """
    if data[:3] == b"\xff\xd8\xff" and (fast := _fast_jpeg()) is not None:
        try:
            height, width, space, _ = fast.decode_jpeg_header(data)
            fits_limit = max_pixels is None or height * width <= max_pixels
            if space in ("YCbCr", "Gray", "RGB") and fits_limit:
                fits = out is not None and out.shape == (height, width, 3)
                image = fast.decode_jpeg(
                    data, fastdct=False, fastupsample=False, buffer=out if fits else None
                )
                return out if out is not None and fits else image
        except ValueError:
            pass  # Pillow has the last word, and the better message
    image = np.asarray(open_rgb(data, max_pixels))
    if out is None or out.shape != image.shape:
        return image
    out[:] = image
    return out


def open_rgb(data: bytes, max_pixels: int | None = MAX_PIXELS) -> Image.Image:
    """Decode an image to a Pillow image of mode RGB; raises `ValueError` as `decode` does."""
    found = header(data)
    _require_bits(found, 8)
    image = _load(found, max_pixels)
    image.info.pop("transparency", None)  # it is dropped, about which Pillow would warn
    return image if image.mode == "RGB" else image.convert("RGB")


def load(data: bytes, max_pixels: int | None = MAX_PIXELS, most_bits: int = 8) -> Loaded:
    """Decode the one picture of a file.

    JPEG files with further pictures behind the first, such as previews, count as files of one.
    Raises `ValueError` with the reason when the bytes cannot be decoded: `NotTaken` when they hold
    several pages or frames, more than `most_bits` bits a channel or more than `max_pixels` pixels.
    """
    found = header(data)
    _require_one(found)
    _require_bits(found, most_bits)
    try:
        return Loaded(found, _load(found, max_pixels))
    except TooLarge as error:
        raise NotTaken(f"{error}: raise --max-pixels if you trust the file") from None


def converted(loaded: Loaded) -> Converted:
    """The picture as uint8 RGB, upright; raises `ValueError` for colours without a rule.

    - It is turned upright by the file's orientation tag; where that cannot be read, it is taken as
      stored.
    - Grey becomes three equal channels, and a palette its colours.
    - Of more than 8 bits a channel, the upper 8 are kept. 32 bits a channel have no rule.
    - Transparent pixels are laid over white.
    - CMYK becomes RGB by (255 − ink) · (255 − black) / 255. Colour profiles are not applied.
    - Of the pictures of a JPEG file the first is taken.
    """
    found, image = loaded
    done = []
    if found.followed:
        done.append(FIRST_TAKEN)
    turn = orientation(found)
    if turn is None:
        done.append(TAKEN_AS_STORED)
    elif turn in _TURNS and found.format != "TIFF":  # Pillow turns TIFF files as it decodes them
        image = image.transpose(_TURNS[turn])
    if found.bits > 8:
        done.append(UPPER_BITS_KEPT)
    if image.mode.startswith("I"):
        pixels, clear = _upper_bits(found, image)
    else:
        if found.bits > 8 and "transparency" in image.info:
            raise NotTaken(
                f"it has {found.bits} bits a channel and one transparent colour: convert it to 8 "
                "bits first"
            )
        clear = not is_opaque(image)
        pixels = np.asarray(_over_white(image) if clear else _opaque_rgb(image))
    if clear:
        done.append(LAID_OVER_WHITE)
    return Converted(pixels, tuple(done))


def is_opaque(image: Image.Image) -> bool:
    """Whether a decoded image of a file's mode has no pixel that is transparent to any degree."""
    if not image.has_transparency_data:
        return True
    if image.mode.startswith("I"):
        return not (np.asarray(image) == image.info["transparency"]).any()
    low, _ = image.convert("RGBA").getchannel("A").getextrema()
    return low == 255


def left_out(data: bytes) -> list[str]:
    """What `decode` leaves out of an image that it decodes, in the words of this module."""
    found = header(data)
    if found.format == "JPEG":
        return []
    image = _open(found, None)
    alpha = image.mode in _ALPHA_MODES or "transparency" in image.info
    hides = alpha and not is_opaque(_load(found, None))
    return [ALPHA_DROPPED] * hides + [FIRST_SHOWN] * found.several


def has_image_ending(name: str) -> bool:
    """Whether a file's name ends as the names of images that can be read do."""
    return name.rpartition(".")[2].lower() in EXTENSIONS | RARE_EXTENSIONS


def image_size(data: bytes, max_pixels: int | None = MAX_PIXELS) -> tuple[int, int]:
    """The (width, height) of an image in pixels, from its header alone.

    Raises `ValueError` with the reason for a header that `load` refuses.
    """
    found = header(data)
    _require_one(found)
    _require_bits(found, 8)
    return _open(found, max_pixels).size


def stated_pixels(path: Path) -> int:
    """The number of pixels that an image file states, of which only the head is read.

    It is 0 for a file that states none, such as one that is no image or cannot be read.
    """
    try:
        with _unlimited(), quiet(), Image.open(path) as image:
            return image.width * image.height
    except DAMAGE:
        return 0


def is_turned(data: bytes) -> bool:
    """Whether an image has an orientation tag that turns it; raises `ValueError` as `load` does."""
    found = header(data)
    if found.format != "TIFF":
        return orientation(found) in _TURNS
    with _pillow(found):
        return _opened(found, None).getexif().get(0x0112) in _TURNS


def open_png(data: bytes, max_pixels: int | None = MAX_PIXELS) -> Image.Image:
    """Decode a PNG file to a Pillow image of its mode; raises `ValueError` as `decode` does."""
    if data[:4] != b"\x89PNG":
        raise ValueError("no PNG")
    return _load(header(data), max_pixels)


def _require_one(found: Header) -> None:
    if found.several:
        raise NotTaken("it holds several pages or frames: save each as a file of its own")


def _require_bits(found: Header, most: int) -> None:
    if found.bits > most:
        raise NotTaken(
            f"it has {found.bits} bits a channel, and more than {most} bits a channel would be "
            f"cut: convert it to {most} bits first"
        )


def _open(found: Header, max_pixels: int | None) -> ImageFile.ImageFile:
    with _pillow(found):
        return _opened(found, max_pixels)


def _load(found: Header, max_pixels: int | None) -> Image.Image:
    with _pillow(found):
        image = _opened(found, max_pixels)
        image.load()
    if image.mode == "P" and image.palette is None:
        raise ValueError("a palette image without its palette")
    if found.format == "PNG" and image.mode == "L" and "transparency" in image.info:
        image.info["transparency"] *= _GREY_STEPS.get(found.bits, 1)
    # Pillow knows no direct way from grey with premultiplied alpha to RGB.
    return image.convert("LA") if image.mode == "La" else image


def _opened(found: Header, max_pixels: int | None) -> ImageFile.ImageFile:
    if found.size is not None:
        _require_size(found.size, max_pixels)
    image = _FILES[found.format](io.BytesIO(found.data))
    _require_size(image.size, max_pixels)
    return image


def _require_size(size: tuple[int, int], max_pixels: int | None) -> None:
    width, height = size
    if max_pixels is not None and width * height > max_pixels:
        raise TooLarge(f"its {width}x{height} pixels exceed the limit of {max_pixels} pixels")


@contextmanager
def _pillow(found: Header) -> Iterator[None]:
    """What Pillow raises about a damaged file becomes `ValueError`; its limits do not hold."""
    try:
        if found.format == "TIFF":
            with _unlimited(), quiet():
                yield
        elif found.format in ("WEBP", "GIF") and found.size is not None:
            with _unlimited() if _is_above_limit(*found.size) else nullcontext():
                yield
        else:  # these files are opened without a look at Pillow's limit
            yield
    except NotTaken:
        raise
    except DAMAGE as error:
        raise ValueError(str(error) or type(error).__name__) from None


def _is_above_limit(width: int, height: int) -> bool:
    most = Image.MAX_IMAGE_PIXELS
    return most is not None and width * height > most


_lifting = threading.Lock()
_lifted: list[int | None] = []


@contextmanager
def _unlimited() -> Iterator[None]:
    """Lift Pillow's limit of pixels, a number of the whole process, while any thread is here."""
    with _lifting:
        _lifted.append(Image.MAX_IMAGE_PIXELS)
        Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _lifting:
            last = _lifted.pop()
            if not _lifted:
                Image.MAX_IMAGE_PIXELS = last


def _over_white(image: Image.Image) -> Image.Image:
    over = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")


def _opaque_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upper_bits(found: Header, image: Image.Image) -> tuple[np.ndarray, bool]:
    """Grey of more than 8 bits as uint8 RGB, and whether some of it was laid over white.

    Pillow stretches the values of a PPM file to 16 bits, and leaves those of other files.
    """
    if image.mode == "I" and found.format != "PPM":
        raise NotTaken(f"its {found.bits} bits a channel have a sign: save it as PNG")
    bits = 16 if found.format == "PPM" else found.bits
    grey = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    clear = not is_opaque(image)
    if clear:
        grey[np.asarray(image) == image.info["transparency"]] = 255
    return np.repeat(grey[..., None], 3, axis=2), clear


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
