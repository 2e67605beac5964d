"""What happens to an image between its shard and the batch: resize, crop, flip, dither.

Every random draw is a pure function of (seed, stream position), so a sample looks the same
whichever rank, process or thread prepares it, before and after a resume.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from shards.errors import ShardError
from shards.reading.order import mix

Size = tuple[int, int]  # (height, width), pixels


@dataclass(frozen=True)
class Transforms:
    """The transforms of an image, which are applied in this order:

    resize: Scale the whole image so that it covers this (height, width), one side exactly and the
        other truncated, by Pillow's bilinear filter with antialiasing; without `crop`, keep the
        centre of that size, or everything if `whole` is set.
    crop: Keep a part of this (height, width): in training at a random place, every place equally
        likely; in evaluation at the centre.
    flip: Swap left and right with probability 1/2, in training.
    dither: Give float32 (x + u) / 256 with u uniform in [0, 1), in training; see `dithered`.

    Maps of pixels are transformed in the same way, but by nearest neighbour; their pixel centres
    are those of the image.
    """

    resize: Size | None = None
    crop: Size | None = None
    flip: bool = False
    dither: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        for name, size in (("resize", self.resize), ("crop", self.crop)):
            if size is not None and min(size) < 1:
                raise ShardError(f"the {name} {in_words(size)} has a side below 1 pixel")
        if self.whole and (self.crop or not self.resize):
            raise ShardError("the whole scaled image is kept only with a resize and without a crop")
        if self.resize and self.crop and not _fits(self.crop, self.resize):
            raise ShardError(
                f"the crop {in_words(self.crop)} is larger than the resize "
                f"{in_words(self.resize)} that it is cut out of"
            )

    def view(self, size: Size, draw: Draw | None) -> View:
        """The part that is kept of an image of this (height, width); without a draw, the centre.

        Raises `ValueError` when the image is smaller than the crop; its text is a predicate, to be
        put behind the name of the image.
        """
        whole = size if self.resize is None else _covering(size, self.resize)
        kept = whole if self.whole else self.crop or self.resize or size
        if not _fits(kept, whole):
            raise ValueError(
                f"is {in_words(size)}, too small for the crop {in_words(kept)}: choose a smaller "
                "crop, or a resize before it"
            )
        room = whole[0] - kept[0], whole[1] - kept[1]
        if self.crop is not None and draw is not None:
            corner = draw.top % (room[0] + 1), draw.left % (room[1] + 1)
        else:
            corner = round(room[0] / 2), round(room[1] / 2)
        return View(size, whole, corner, kept, self.flip and draw is not None and draw.mirrored)


class Draw(NamedTuple):
    """The random draws of one sample: two integers of 63 bits, and the toss of a coin."""

    top: int
    left: int
    mirrored: bool


class View(NamedTuple):
    """How one image is transformed.

    An image of the size `source` is scaled to the size `whole`; of the scaled image, a part of the
    size `kept` is cut out at `corner`; the part is mirrored if `mirrored` is true. Sizes are
    (height, width) and the corner is (top, left), in pixels.
    """

    source: Size
    whole: Size
    corner: tuple[int, int]
    kept: Size
    mirrored: bool

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """Transform uint8 [H, W, 3] of size `source` to uint8 [h, w, 3] of size `kept`.

        The result may share memory with `pixels`.
        """
        if self.whole != self.source:
            image = Image.fromarray(pixels)
            pixels = np.asarray(image.resize(self.whole[::-1], Image.Resampling.BILINEAR))
        (top, left), (height, width) = self.corner, self.kept
        pixels = pixels[top : top + height, left : left + width]
        return pixels[:, ::-1] if self.mirrored else pixels

    def map(self, labels: np.ndarray) -> np.ndarray:
        """Transform integers [H, W] of size `source` to [h, w] of size `kept`.

        Each pixel of the result has the value of the nearest pixel of the source.
        """
        rows, columns = (
            # The pixel of the source that holds the centre of each pixel, in whole numbers.
            (2 * (corner + np.arange(kept)) + 1) * source // (2 * whole)
            for source, whole, corner, kept in zip(
                self.source, self.whole, self.corner, self.kept, strict=True
            )
        )
        return labels[rows[:, None], columns[::-1] if self.mirrored else columns]


def draws(seed: int, positions: np.ndarray) -> list[Draw]:
    """The random draws of the samples at stream positions int64 [n]."""
    keys = np.frombuffer(_digest(seed, "integers")[:24], dtype="<u8").astype(np.uint64)
    integers = mix(positions.astype(np.uint64), keys[:, None])
    return [Draw(top, left, coin >= 1 << 62) for top, left, coin in integers.T.tolist()]


def dithered(pixels: np.ndarray, seed: int, position: int, out: np.ndarray) -> None:
    """Put float32 (x + u) / 256 into `out`, for x uint8 `pixels` and u uniform in [0, 1).

    u is a multiple of 2^-16 from a Philox generator that is keyed by the seed and whose counter is
    the stream position. So each value is exact in float32 and below 1, and x is found again by
    multiplying it by 256 and rounding down. The density of the values over [0, 1) integrates to the
    image's probability (Theis et al., "A note on the evaluation of generative models", section
    3.1).
    """
    key = np.frombuffer(_digest(seed, "dither")[:16], dtype="<u8").astype(np.uint64)
    generator = np.random.Philox(key=key, counter=[0, position, 0, 0])
    words = generator.random_raw(-(-pixels.size // 4)).astype("<u8", copy=False)
    u = words.view("<u2")[: pixels.size].reshape(pixels.shape)
    np.bitwise_or(pixels.astype(np.uint32) << np.uint32(16), u, out=out, casting="unsafe")
    out *= np.float32(2.0**-24)


def in_words(size: Size) -> str:
    """A (height, width) in words, for messages."""
    return f"{size[0]}x{size[1]} (height x width)"


def _covering(size: Size, target: Size) -> Size:
    """The size, scaled to cover the target: one side is met exactly, the other is truncated."""
    (height, width), (h, w) = size, target
    if h * width >= w * height:
        return h, max(w, h * width // height)
    return max(h, w * height // width), w


def _fits(inner: Size, outer: Size) -> bool:
    return inner[0] <= outer[0] and inner[1] <= outer[1]


@lru_cache(maxsize=64)
def _digest(seed: int, use: str) -> bytes:
    return hashlib.sha256(f"Transforms/1/{seed}/{use}".encode()).digest()
