"""Engineered image codecs, with which learned codecs are compared at the same rate.

The papers' references were BPG, and PNG, WebP and FLIF for lossless coding. Here the codecs are
JPEG, WebP, JPEG 2000 and AVIF through Pillow, and JPEG XL through `imagecodecs` where that is
installed; PNG, WebP, JPEG 2000 and JPEG XL also without loss (`lossless`), each at its most
careful. A rate is that of a whole file without metadata but with its headers, which are a large
part of the files of tiny images and of low rates.
Beside a joint container of many images stands an archive of their files (`archive`), in which the
headers that all of them share cost next to nothing.

Each lossy codec has a ladder of settings, ordered from small files to large ones. The rate need not
grow at every single step of it: a deblocking filter or a better search may make the next file
smaller.
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, features

from gencomp.coding import fixed_length
from gencomp.errors import InputError

_SMALL_FILE = 4096  # bytes

Encode = Callable[[np.ndarray, float], bytes]
Decode = Callable[[bytes], np.ndarray]


class Coded(NamedTuple):
    """One image after one codec has encoded and decoded it at one setting.

    Attributes:
        quality: the setting.
        bits: the size of the whole file.
        image_HWC: the decoded image, uint8 RGB.
    """

    quality: float
    bits: int
    image_HWC: np.ndarray


@dataclass(frozen=True)
class ClassicalCodec:
    """An image codec with its settings.

    Attributes:
        name: the codec's name, as figures show it.
        ladder: the settings, ordered from the smallest to the largest files.
        in_archive: another way to write files that decode to the same pixels. Alone they are
            larger, but they have more in common with each other; None if there is none.
    """

    name: str
    ladder: tuple[float, ...]
    _encode: Encode = field(repr=False)
    _decode: Decode = field(repr=False)
    in_archive: Encode | None = field(default=None, repr=False)

    def encode(self, image_HWC: np.ndarray, quality: float) -> bytes:
        """The file of a uint8 RGB image [H, W, 3]."""
        return self._encode(np.ascontiguousarray(image_HWC), quality)

    def decode(self, data: bytes) -> np.ndarray:
        """The uint8 RGB image that a file holds."""
        return self._decode(data)

    def code(self, image_HWC: np.ndarray, quality: float) -> Coded:
        """Encode and decode a uint8 RGB image [H, W, 3]."""
        data = self.encode(image_HWC, quality)
        return Coded(quality, 8 * len(data), self.decode(data))


def codecs() -> list[ClassicalCodec]:
    """All codecs that are installed."""
    found = []
    for name in NAMES:
        try:
            found.append(codec(name))
        except InputError:
            continue
    return found


def codec(name: str) -> ClassicalCodec:
    """The codec with a given name.

    Raises:
        InputError: there is no codec of that name, or it is not installed.
    """
    if name not in NAMES:
        raise InputError(f"there is no image codec {name}; there are {', '.join(NAMES)}")
    feature, made, mend = NAMES[name]
    if not (feature in features.get_supported() or find_spec(feature)):
        raise InputError(f"{name} is not installed: {mend}")
    return made()


def lossless(name: str) -> ClassicalCodec:
    """The lossless codec with a given name, whose ladder has one rung.

    Raises:
        InputError: there is no lossless codec of that name, or it is not installed.
    """
    if name not in LOSSLESS:
        raise InputError(f"there is no lossless codec {name}; there are {', '.join(LOSSLESS)}")
    feature, made, mend = LOSSLESS[name]
    if feature is not None and not (feature in features.get_supported() or find_spec(feature)):
        raise InputError(f"{name} is not installed: {mend}")
    return made()


def curve(
    images: Iterable[np.ndarray],
    codec: ClassicalCodec,
    qualities: Sequence[float] | None = None,
) -> Iterator[list[Coded]]:
    """Code each image at each quality, in that order; the default is the whole ladder."""
    for image_HWC in images:
        yield [codec.code(image_HWC, quality) for quality in qualities or codec.ladder]


def archive(files: Sequence[bytes]) -> bytes:
    """One archive of many files: a table of their lengths, and the files one after another.

    The whole is compressed by LZMA, as a solid 7-Zip archive is, where that makes it smaller. So it
    is the counterpart of a joint container, which states common things once.

    Args:
        files: one file or more. Where they have more than 4 KiB on average, headers hardly matter
            and LZMA is left out.
    """
    lengths_N = np.array([len(file) for file in files])
    least, bits = int(lengths_N.min()), int(np.ptp(lengths_N)).bit_length()
    excess = fixed_length.pack(lengths_N - least, 1 << bits) if bits else b""
    plain = struct.pack("<IIB", len(files), least, bits) + excess + b"".join(files)
    if lengths_N.mean() > _SMALL_FILE:
        return plain
    return min(plain, lzma.compress(plain, lzma.FORMAT_ALONE, preset=9), key=len)


def _pillow(form: str, options: Callable[[float], dict[str, Any]]) -> tuple[Encode, Decode]:
    def encode(image_HWC: np.ndarray, quality: float) -> bytes:
        buffer = BytesIO()
        Image.fromarray(image_HWC).save(buffer, format=form, **options(quality))
        return buffer.getvalue()

    def decode(data: bytes) -> np.ndarray:
        with Image.open(BytesIO(data), formats=[form]) as image:
            return np.asarray(image.convert("RGB"))

    return encode, decode


def _jpeg() -> ClassicalCodec:
    """Baseline DCT with optimised Huffman tables and halved colour resolution."""
    ladder = (1, 2, 3, 4, 5, 6, 8, *range(10, 96, 5))

    def options(optimize: bool) -> Callable[[float], dict[str, Any]]:
        return lambda q: {"quality": int(q), "optimize": optimize, "subsampling": "4:2:0"}

    encode, decode = _pillow("JPEG", options(optimize=True))
    # All files have the standard Huffman tables then, which an archive holds once.
    in_archive, _ = _pillow("JPEG", options(optimize=False))
    return ClassicalCodec("JPEG", ladder, encode, decode, in_archive)


def _webp() -> ClassicalCodec:
    coders = _pillow("WEBP", lambda q: {"quality": int(q), "method": 6})
    return ClassicalCodec("WebP", (0, 1, 2, 3, 4, 6, 8, *range(10, 101, 5)), *coders)


def _jpeg_2000() -> ClassicalCodec:
    """The setting is the target rate in bpp; files are a little smaller or larger."""
    ladder = tuple(0.02 * 2 ** (step / 3) for step in range(26))
    coders = _pillow(
        "JPEG2000",
        lambda bpp: {
            "quality_mode": "rates",
            "quality_layers": [24 / bpp],
            "irreversible": True,
            "mct": 1,
            "no_jp2": True,
        },
    )
    return ClassicalCodec("JPEG 2000", ladder, *coders)


def _avif() -> ClassicalCodec:
    # With one thread the bits of a file do not depend on the machine.
    coders = _pillow(
        "AVIF",
        lambda q: {"quality": int(q), "speed": 4, "subsampling": "4:2:0", "max_threads": 1},
    )
    return ClassicalCodec("AVIF", (0, 2, 4, 6, 8, *range(10, 96, 5)), *coders)


def _jpeg_xl() -> ClassicalCodec:
    """The setting is minus the Butteraugli distance."""
    import imagecodecs

    def encode(image_HWC: np.ndarray, quality: float) -> bytes:
        return bytes(imagecodecs.jpegxl_encode(image_HWC, distance=-quality, effort=7))

    ladder = (-25, -15, -12, -10, -8, -6, -5, -4, -3, -2, -1.5, -1, -0.5)
    return ClassicalCodec("JPEG XL", ladder, encode, imagecodecs.jpegxl_decode)


_NEW_PILLOW = "install a Pillow that was built with it"
# For each name: the feature that must be there, how the codec is made, and what to do without it.
NAMES: dict[str, tuple[str, Callable[[], ClassicalCodec], str]] = {
    "JPEG": ("jpg", _jpeg, _NEW_PILLOW),
    "WebP": ("webp", _webp, _NEW_PILLOW),
    "JPEG 2000": ("jpg_2000", _jpeg_2000, _NEW_PILLOW),
    "AVIF": ("avif", _avif, _NEW_PILLOW),
    "JPEG XL": ("imagecodecs", _jpeg_xl, "pip install imagecodecs"),
}


def _only(name: str, coders: tuple[Encode, Decode]) -> ClassicalCodec:
    """A lossless codec, whose one setting means nothing."""
    return ClassicalCodec(name, (0,), *coders)


def _lossless_jpeg_xl() -> ClassicalCodec:
    import imagecodecs

    def encode(image_HWC: np.ndarray, quality: float) -> bytes:
        return bytes(imagecodecs.jpegxl_encode(image_HWC, lossless=True, effort=9))

    return _only("JPEG XL", (encode, imagecodecs.jpegxl_decode))


# As in `NAMES`; Pillow always has PNG.
LOSSLESS: dict[str, tuple[str | None, Callable[[], ClassicalCodec], str]] = {
    "PNG": (None, lambda: _only("PNG", _pillow("PNG", lambda q: {"optimize": True})), ""),
    "WebP": (
        "webp",
        lambda: _only(
            "WebP",
            _pillow("WEBP", lambda q: {"lossless": True, "quality": 100, "method": 6}),
        ),
        _NEW_PILLOW,
    ),
    "JPEG 2000": (
        "jpg_2000",
        lambda: _only(
            "JPEG 2000",
            _pillow("JPEG2000", lambda q: {"irreversible": False, "mct": 1, "no_jp2": True}),
        ),
        _NEW_PILLOW,
    ),
    "JPEG XL": ("imagecodecs", _lossless_jpeg_xl, "pip install imagecodecs"),
}
