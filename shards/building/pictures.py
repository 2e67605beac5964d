"""How the images of a new set are stored: their size, and the format of their bytes."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from shards.errors import ShardError
from shards.info import Transform
from shards.reading import decode
from shards.reading.image_headers import FORMATS
from shards.reading.transforms import Transforms, View

STORAGES = "original, png, webp (lossless), jpeg:<quality 1 to 100>"
LARGEST_SIDE = 16383  # WebP's limit
_STORAGE = re.compile(r"original|png|webp|jpeg:([1-9]\d?|100)")


class Picture(NamedTuple):
    """An image as it is stored.

    Attributes:
        data: The bytes of a file.
        ext: The extension of the file.
        width, height: The size of the image in pixels.
        done: What was done to the image, in the words of `shards.reading.decode`.
    """

    data: bytes
    ext: str
    width: int
    height: int
    done: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pictures:
    """How the images of a set are stored.

    `size` is the stored (height, width) in pixels, or None if each image keeps its own size;
    `storage` is one of `STORAGES`; files with more than `max_pixels` pixels are refused.

    With a size, an image is scaled so that it covers height × width and is cropped around its
    centre, both by torchvision's integer rules for `Resize` and `CenterCrop`: one side is met
    exactly, the other is truncated; half a pixel of margin is rounded to even. Maps of pixels are
    transformed in the same way, but by nearest neighbour; their pixel centres are those of the
    image.
    """

    size: tuple[int, int] | None
    storage: str
    max_pixels: int = decode.MAX_PIXELS

    def square(self, least: int, most: int, what: str, asked: str | None) -> int:
        """The side of images that must be square; raises `ShardError` for any other size.

        For the message, `what` names the images, such as `a photo crop`, and `asked` is the size as
        it was asked for.
        """
        side = self.size[0] if self.size else 0
        if self.size != (side, side) or not least <= side <= most:
            raise ShardError(
                f"the size of {what} is one side of {least} to {most} pixels, not {asked}"
            )
        return side

    def transform(self) -> Transform:
        """The description of the transform for `dataset.json`."""
        if self.storage == "original":
            geometry = "none: files as found, orientation tags not applied"
        elif self.size is None:
            geometry = "none: orientation tags applied"
        else:
            geometry = (
                "orientation tags applied, scaled to cover the size (Pillow bilinear with "
                "antialiasing; maps nearest), centre crop"
            )
        return Transform(size=self.size, geometry=geometry, storage=self.storage)

    def encode(self, data: bytes) -> Picture:
        """Store the bytes of an image file.

        The storage `original` keeps the bytes, once they have been decoded without an error. For
        other storages the pixels are turned upright by the file's orientation tag, are laid over
        white where they are transparent, and become RGB of this size and storage.

        Raises `ValueError` with the reason when the bytes are no image or hold several pages or
        frames or more than 8 bits a channel, and when original bytes hold transparent pixels, since
        readers, which drop alpha, would show the colours that it hides.
        """
        loaded = decode.load(data, self.max_pixels)
        if self.storage == "original":
            return _original(data, loaded)
        found = decode.converted(loaded)
        return self._store(Image.fromarray(found.pixels))._replace(done=found.done)

    def encode_pixels(self, pixels: np.ndarray) -> Picture:
        """Store pixels, uint8 [H, W, 3] RGB or [H, W] grey; grey PNG and JPEG files stay grey."""
        if self.storage == "original":
            raise ShardError(_NO_FILES)
        return self._store(Image.fromarray(pixels))

    def encode_map(self, labels: np.ndarray) -> bytes:
        """A PNG of a map, uint8 or uint16 [H, W], in the geometry of its image.

        The map is resized by nearest neighbour.
        """
        labels = self._view(*labels.shape).map(labels)
        return _saved(Image.fromarray(np.ascontiguousarray(labels)), "PNG")

    def _view(self, height: int, width: int) -> View:
        return Transforms(resize=self.size).view((height, width), None)

    def _store(self, image: Image.Image) -> Picture:
        view = self._view(image.height, image.width)
        # The new image is made from the pixels alone, without colour profile and comment.
        image = Image.fromarray(np.ascontiguousarray(view.image(np.asarray(image))))
        width, height = image.size
        if self.storage == "png":
            return Picture(_saved(image, "PNG"), "png", width, height)
        if self.storage == "webp":
            return Picture(_saved(image, "WEBP", lossless=True), "webp", width, height)
        # Colour is stored at full resolution (subsampling 0), since the stored image is the
        # reference of every later measurement.
        quality = int(self.storage.removeprefix("jpeg:"))
        data = _saved(image, "JPEG", quality=quality, subsampling=0)
        return Picture(data, "jpg", width, height)


def pictures(
    size: str | None,
    storage: str | None,
    default_storage: str,
    *,
    max_pixels: int = decode.MAX_PIXELS,
    arrays: bool = False,
) -> Pictures:
    """The `Pictures` for the options `size`, `storage` and `max_pixels` of a source.

    A source that keeps original bytes by default stores PNG if a size is asked for. `arrays` says
    that the source holds arrays of pixels and no image files, so there are no original bytes.
    """
    if max_pixels < 1:
        raise ShardError(f"the limit of {max_pixels} pixels must be at least 1")
    shape = None if size is None else parse_size(size)
    if storage is None:
        storage = "png" if shape is not None and default_storage == "original" else default_storage
    if not _STORAGE.fullmatch(storage):
        raise ShardError(f"the storage {storage!r} is not one of {STORAGES}")
    if storage == "original" and arrays:
        raise ShardError(_NO_FILES)
    if storage == "original" and shape is not None:
        raise ShardError(
            f"original bytes cannot be resized to {size}: leave the size out or choose the storage "
            "png, webp or jpeg:<quality>"
        )
    return Pictures(shape, storage, max_pixels)


def parse_size(text: str) -> tuple[int, int]:
    """Parse a size such as '64' or '512x1024' to (height, width)."""
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    if match is None:
        raise ShardError(
            f"the size {text!r} is neither a side such as 64 nor a height x width such as 512x1024"
        )
    height, width = int(match[1]), int(match[2] or match[1])
    if not (1 <= height <= LARGEST_SIDE and 1 <= width <= LARGEST_SIDE):
        raise ShardError(f"the size {text} has a side outside 1 to {LARGEST_SIDE} pixels")
    return height, width


_NO_FILES = (
    "this source holds pixels and no image files, so it has no original bytes: choose the storage "
    "png, webp or jpeg:<quality>"
)


def _original(data: bytes, loaded: decode.Loaded) -> Picture:
    found, image = loaded
    if not decode.is_opaque(image):
        raise decode.NotTaken(
            "it has transparent pixels, whose hidden colours readers of its bytes would show: "
            "choose the storage png, webp or jpeg:<quality>, which lays them over white"
        )
    done = (decode.FIRST_TAKEN,) if found.followed else ()
    return Picture(data, FORMATS[found.format], image.width, image.height, done)


def _saved(image: Image.Image, form: str, **options: int) -> bytes:
    stream = io.BytesIO()
    try:
        image.save(stream, form, **options)
    except OSError as error:
        raise ValueError(f"{image.width}x{image.height} pixels as {form}: {error}") from None
    return stream.getvalue()
