"""What an image file holds, read from its header.

Pillow converts many files silently: its mode does not tell 16 bits a channel from 8, nor three
pages from one, and its own limits on text and size refuse good pictures. So the header is read
here, and Pillow is given a PNG or JPEG file without the parts on which no pixel depends.
"""

from __future__ import annotations

import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

FORMATS = {
    "PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "bmp", "PPM": "ppm", "TIFF": "tif",
    "GIF": "gif",
}  # fmt: skip
# What the library's parsers raise on damaged files.
DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip

_ORIENTATION = 0x0112
_MOST_TEXT = 16 << 20  # bytes of unpacked text that are searched for an orientation

_PNG = b"\x89PNG\r\n\x1a\n"
_CHUNK, _SIZE = struct.Struct(">I4s"), struct.Struct(">II")
_ANCILLARY = 0x20  # the bit of the first letter of a chunk that makes it small
_RAW_PROFILE = "Raw profile type exif"
_XMP = "xmp"
_TIFF = (b"II*\0", b"MM\0*", b"MM*\0", b"II\0*", b"MM\0+", b"II+\0")
_BITS, _KIND = 258, 254
_REDUCED_OR_MASK = 1 | 4  # bits of the tag `_KIND`
_NETPBM_MAGIC = re.compile(rb"P[0-6fy]")
_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_NETPBM = re.compile(rb"P(?:[2356]|0CMYK)" + _GAP + rb"\d+" + _GAP + rb"\d+" + _GAP + rb"(\d+)")


class Header(NamedTuple):
    """What an image file says about itself.

    Attributes:
        format: The name of the format, a key of `FORMATS`.
        data: The file for Pillow: a PNG or JPEG file is left with the parts that decide its pixels.
        bits: The number of bits of a channel, the largest one if they differ.
        size: The (width, height) in pixels; None where only opening the file tells.
        several: Whether the file holds more than one picture, as pages or frames.
        followed: Whether a JPEG file holds further pictures, as cameras put them behind the first:
            previews, gain maps, the other eye.
        metadata: What may hold the orientation, by the names that Pillow has for it.
        tag: The orientation tag of a TIFF file.
    """

    format: str
    data: bytes
    bits: int = 8
    size: tuple[int, int] | None = None
    several: bool = False
    followed: bool = False
    metadata: Mapping[str, bytes | str] = {}
    tag: object = 1


def header(data: bytes) -> Header:
    """Read the header of an image file; raises `ValueError` with the reason if it has none."""
    if data[:4] == _PNG[:4]:
        return _png(data)
    if data[:3] == b"\xff\xd8\xff":
        return _jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data[:2] == b"BM":
        return Header("BMP", data)
    if _NETPBM_MAGIC.match(data):
        return _netpbm(data)
    if data[:4] in _TIFF:
        return _tiff(data)
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return _gif(data)
    raise ValueError(f"none of the formats {', '.join(FORMATS)}")


def orientation(found: Header) -> int | None:
    """The orientation of a picture, 1 to 8 as in EXIF, where 1 is upright; None if not readable.

    Only the tag itself must be readable: other damage of the metadata does not matter.
    """
    if not found.metadata:
        return _valid(found.tag)
    holder = Image.new("1", (1, 1))
    holder.info.update(found.metadata)
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        try:
            tag = holder.getexif().get(_ORIENTATION)
        except DAMAGE:
            return None
    if tag is None:
        return None if complaints else 1
    return _valid(tag)


_quiet = threading.Lock()
_silenced: list[warnings.catch_warnings[None]] = []


@contextmanager
def quiet() -> Iterator[None]:
    """Drop the warnings of the process while any thread is here: Pillow warns about odd tags.

    `warnings.catch_warnings` alone must not overlap in two threads.
    """
    with _quiet:
        if not _silenced:
            _silenced.append(warnings.catch_warnings(action="ignore"))
            _silenced[0].__enter__()
        else:
            _silenced.append(_silenced[0])
    try:
        yield
    finally:
        with _quiet:
            last = _silenced.pop()
            if not _silenced:
                last.__exit__(None, None, None)


def _valid(tag: object) -> int | None:
    return next((turn for turn in range(1, 9) if turn == tag), None)


def _png(data: bytes) -> Header:
    """A PNG file is left with its critical chunks and the transparency."""
    kept, start, several = list[bytes](), 0, False
    metadata: dict[str, bytes | str] = {}
    at = len(_PNG)
    while at + 12 <= len(data):
        length, kind = _CHUNK.unpack_from(data, at)
        end = at + 12 + length
        if end > len(data) or kind == b"IEND":  # what is behind a cut chunk is Pillow's to judge
            break
        if kind[0] & _ANCILLARY and kind != b"tRNS":
            kept.append(data[start:at])
            start = end
            several |= kind == b"fdAT"
            metadata.update(_png_metadata(kind, data[at + 8 : end - 4]))
        at = end
    lean = b"".join([*kept, data[start:]]) if kept else data
    if data[12:16] != b"IHDR" or len(data) < 26:
        return Header("PNG", lean)
    return Header("PNG", lean, data[24], _SIZE.unpack_from(data, 16), several, metadata=metadata)


def _png_metadata(kind: bytes, content: bytes) -> dict[str, bytes | str]:
    if kind == b"eXIf":
        return {"exif": content}
    return _png_text(kind, content) if kind in (b"iTXt", b"zTXt", b"tEXt") else {}


def _png_text(kind: bytes, content: bytes) -> dict[str, bytes | str]:
    """The metadata in a chunk of text; empty for any other text."""
    key, _, rest = content.partition(b"\0")
    if key == b"XML:com.adobe.xmp" and kind == b"iTXt":
        packed, rest = rest[:1] != b"\0", rest[2:].split(b"\0", 2)[-1]
        return {_XMP: _unpacked(rest) if packed else rest}
    if key == _RAW_PROFILE.encode():
        if kind == b"iTXt":
            packed, rest = rest[:1] != b"\0", rest[2:].split(b"\0", 2)[-1]
        else:
            packed, rest = kind == b"zTXt", rest[kind == b"zTXt" :]
        return {_RAW_PROFILE: (_unpacked(rest) if packed else rest).decode("latin-1")}
    return {}


def _unpacked(packed: bytes) -> bytes:
    """The start of a compressed text, as far as it can be read."""
    try:
        return zlib.decompressobj().decompress(packed, _MOST_TEXT)
    except zlib.error:
        return b""


def _jpeg(data: bytes) -> Header:
    """A JPEG file is left without the segments of applications but APP0 and APP14.

    APP0 and APP14 say which colours the channels are.
    """
    kept, at = [data[:2]], 2
    bits, size, followed = 8, None, False
    exif = b""  # a long one takes several segments
    metadata: dict[str, bytes | str] = {}
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        marker = data[at + 1]
        if marker == 0xFF:  # markers may have any number of these bytes before them
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker in (0xD9, 0xDA, 0x00) or end > len(data):  # the scan, or damage
            break
        content = data[at + 4 : end]
        if 0xE1 <= marker <= 0xEF and marker != 0xEE:
            followed |= marker == 0xE2 and content.startswith(b"MPF\0")
            if marker == 0xE1 and content.startswith(b"Exif\0\0"):
                exif += content[6:] if exif else content
                metadata["exif"] = exif
            elif marker == 0xE1 and content.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
                metadata[_XMP] = content.partition(b"\0")[2]
        elif marker != 0xFE:
            kept.append(data[at:end])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(content) >= 5:
            bits = content[0]
            size = int.from_bytes(content[3:5]), int.from_bytes(content[1:3])
        at = end
    lean = b"".join([*kept, data[at:]])
    return Header("JPEG", lean, bits, size, followed=followed, metadata=metadata)


def _webp(data: bytes) -> Header:
    metadata: dict[str, bytes | str] = {}
    frames, size, at = 0, None, 12
    while at + 8 <= len(data):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        content = data[at + 8 : at + 8 + length]
        frames += kind == b"ANMF"
        size = size or _webp_size(kind, content)
        if kind in (b"EXIF", b"XMP "):
            metadata[kind.decode().strip().lower()] = content
        at += 8 + length + length % 2
    return Header("WEBP", data, size=size, several=frames > 1, metadata=metadata)


def _webp_size(kind: bytes, content: bytes) -> tuple[int, int] | None:
    if kind == b"VP8X" and len(content) >= 10:
        sides = content[4:7], content[7:10]
        return int.from_bytes(sides[0], "little") + 1, int.from_bytes(sides[1], "little") + 1
    if kind == b"VP8L" and len(content) >= 5:
        both = int.from_bytes(content[1:5], "little")
        return (both & 0x3FFF) + 1, (both >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and len(content) >= 10:
        both = int.from_bytes(content[6:10], "little")
        return both & 0x3FFF, both >> 16 & 0x3FFF
    return None


def _netpbm(data: bytes) -> Header:
    if data[1:2] == b"f":
        return Header("PPM", data, bits=32)
    found = _NETPBM.match(data)
    return Header("PPM", data, bits=max(8, int(found[1][:6]).bit_length()) if found else 8)


def _gif(data: bytes) -> Header:
    """The size covers the frame too, which may reach beyond the size that the file states."""
    width, height = struct.unpack_from("<HH", data.ljust(10, b"\0"), 6)
    at, frames = 13 + _colours(data, 10), 0
    while frames < 2 and at < len(data) and data[at] in (0x21, 0x2C):
        if data[at] == 0x2C:
            frames += 1
            left, top, wide, high = struct.unpack_from("<4H", data[at : at + 9].ljust(9, b"\0"), 1)
            width, height = max(width, left + wide), max(height, top + high)
        at += 2 if data[at] == 0x21 else 11 + _colours(data, at + 9)
        while at < len(data) and data[at]:  # blocks of up to 255 bytes
            at += 1 + data[at]
        at += 1
    return Header("GIF", data, size=(width, height), several=frames > 1)


def _colours(data: bytes, at: int) -> int:
    """The bytes of the table of colours that a GIF's byte of flags states."""
    flags = data[at] if at < len(data) else 0
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _tiff(data: bytes) -> Header:
    """Thumbnails, overviews and masks are no further pages."""
    stream, seen = io.BytesIO(data), set[int]()
    several, bits, tag = False, 8, None
    with quiet():
        try:
            page = ImageFileDirectory_v2(data[: 16 if data[2] == 43 else 8])
            while page.next and page.next not in seen and not several:
                seen.add(page.next)
                stream.seek(page.next)
                page.load(stream)
                if len(seen) == 1:
                    bits = max(8, *map(int, page.get(_BITS, (1,))))
                    tag = page.get(_ORIENTATION, 1)
                else:
                    several = bool(page) and not int(page.get(_KIND, 0)) & _REDUCED_OR_MASK
        except DAMAGE as error:
            raise ValueError(str(error) or "a damaged TIFF file") from None
    return Header("TIFF", data, bits, several=several, tag=tag)
