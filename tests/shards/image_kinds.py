"""Image files of every kind: formats, colour types, bits of a channel, alpha, pages, metadata."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 5, 7
RANDOM = np.random.default_rng(0)
COLOURS = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY = COLOURS[..., :1]
DEEP = RANDOM.integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
INKS = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
ALPHA = np.where(np.arange(WIDTH) < 3, 0, 255).astype(np.uint8)[None, :, None].repeat(HEIGHT, 0)
OPAQUE = np.full_like(ALPHA, 255)


class Kind(NamedTuple):
    """A file of one kind.

    Attributes:
        name: The format, and what is special about the file.
        data: The file.
        rgb: Its picture over white, uint8 [H, W, 3], of the upper 8 bits of a channel; None for a
            file without one.
        refused: Words of the reason for which neither sets nor codecs take the file.
        bits: The number of bits of a channel.
        clear: Whether some pixels are transparent.
        done: Words of what is done to the file beside the upper bits and the white.
    """

    name: str
    data: bytes
    rgb: np.ndarray | None
    refused: str = ""
    bits: int = 8
    clear: bool = False
    done: str = ""


def three(grey_HW1: np.ndarray) -> np.ndarray:
    return np.repeat(grey_HW1, 3, axis=2)


def over_white(pixels_HWC: np.ndarray, alpha_HW1: np.ndarray) -> np.ndarray:
    """Pixels laid over white, for an alpha of 0 and 255."""
    return np.where(alpha_HW1 > 0, pixels_HWC, 255).astype(np.uint8)


def chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def png(
    samples_HWC: np.ndarray,
    depth: int,
    colour: int,
    before: Sequence[tuple[bytes, bytes]] = (),
    after: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """A PNG by its specification, with further chunks before and after the pixels."""
    height, width = samples_HWC.shape[:2]
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in samples_HWC]
    else:
        bits = (samples_HWC.reshape(height, -1, 1) >> np.arange(depth)[::-1]) & 1
        rows = [np.packbits(row.ravel().astype(np.uint8)).tobytes() for row in bits]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), *before, (b"IDAT", pixels), *after, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def tiff(
    *pages_HWC: np.ndarray,
    photometric: int,
    extra: Sequence[int] = (),
    form: int = 1,
    kinds: Sequence[int] = (0, 0, 0),
    bits: int | None = None,
) -> bytes:
    """An uncompressed TIFF file with one directory for each page.

    `form` is the tag SampleFormat, and `kinds` are the tags NewSubfileType of the pages.
    """
    out = bytearray(b"II*\0" + bytes(4))
    link = 4
    for page, kind in zip(pages_HWC, kinds, strict=False):
        height, width, channels = page.shape
        depth = bits or 8 * page.dtype.itemsize
        pixels = page.astype(page.dtype.newbyteorder("<")).tobytes()
        pixels_at = len(out)
        out += pixels
        depths_at, forms_at = len(out), len(out) + 2 * channels
        out += struct.pack(f"<{channels}H", *[depth] * channels)
        out += struct.pack(f"<{channels}H", *[form] * channels)
        out += bytes(len(out) % 2)
        entries = [
            (254, 4, 1, kind), (256, 4, 1, width), (257, 4, 1, height),
            (258, 3, channels, depths_at if channels > 2 else depth * (1 + (channels > 1) * 65536)),
            (259, 3, 1, 1), (262, 3, 1, photometric), (273, 4, 1, pixels_at),
            (277, 3, 1, channels), (278, 4, 1, height), (279, 4, 1, len(pixels)),
        ]  # fmt: skip
        if extra:
            entries.append((338, 3, len(extra), extra[0]))
        if form != 1:
            value = forms_at if channels > 2 else form * (1 + (channels > 1) * 65536)
            entries.append((339, 3, channels, value))
        struct.pack_into("<I", out, link, len(out))
        out += struct.pack("<H", len(entries))
        out += b"".join(struct.pack("<HHII", *entry) for entry in entries)
        link = len(out)
        out += bytes(4)
    return bytes(out)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def of_array(pixels: np.ndarray, form: str, **options: Any) -> bytes:
    return saved(Image.fromarray(pixels.squeeze()), form, **options)


def cmyk_as_rgb(inks: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(inks, mode="CMYK").convert("RGB"))


def kinds() -> Iterator[Kind]:
    yield from _pngs()
    yield from _tiffs()
    yield from _others()


SEVERAL = "several pages or frames"


def _pngs() -> Iterator[Kind]:
    for depth in (1, 2, 4, 8):
        values = GREY >> (8 - depth)
        grey = three(values * (255 // (2**depth - 1)))
        yield Kind(f"PNG grey {depth}", png(values, depth, 0), grey)
        key = values[0, 0, 0]
        clear = [(b"tRNS", struct.pack(">H", key))]
        yield Kind(
            f"PNG grey {depth} with a clear value", png(values, depth, 0, clear),
            over_white(grey, values != key), clear=True,
        )  # fmt: skip
        palette = np.resize(COLOURS.reshape(-1, 3), (2**depth, 3))
        chunks = [(b"PLTE", palette.tobytes())]
        shown = palette[values[..., 0]]
        yield Kind(f"PNG palette {depth}", png(values, depth, 3, chunks), shown)
        alphas = np.full(2**depth, 255, np.uint8)
        alphas[key] = 0
        yield Kind(
            f"PNG palette {depth} with a clear place",
            png(values, depth, 3, [*chunks, (b"tRNS", alphas.tobytes())]),
            over_white(shown, values != key), clear=True,
        )  # fmt: skip
    deep, ten = DEEP, DEEP >> 6
    key16 = [(b"tRNS", struct.pack(">H", DEEP[0, 0, 0]))]
    yield Kind("PNG grey 16", png(deep[..., :1], 16, 0), three(deep[..., :1] >> 8), bits=16)
    yield Kind("PNG grey 10 in 16", png(ten[..., :1], 16, 0), three(ten[..., :1] >> 8), bits=16)
    yield Kind(
        "PNG grey 16 with a clear value", png(deep[..., :1], 16, 0, key16),
        over_white(three(deep[..., :1] >> 8), deep[..., :1] != DEEP[0, 0, 0]), bits=16, clear=True,
    )  # fmt: skip
    yield Kind("PNG RGB 16", png(deep, 16, 2), deep >> 8, bits=16)
    yield Kind("PNG RGB 10 in 16", png(ten, 16, 2), ten >> 8, bits=16)
    yield Kind("PNG RGB 8", png(COLOURS, 8, 2), COLOURS)
    yield Kind(
        "PNG RGB 8 with a clear colour",
        png(COLOURS, 8, 2, [(b"tRNS", struct.pack(">3H", *COLOURS[0, 0]))]),
        over_white(COLOURS, (COLOURS != COLOURS[0, 0]).any(2, keepdims=True)), clear=True,
    )  # fmt: skip
    yield Kind(
        "PNG RGB 16 with a clear colour",
        png(deep, 16, 2, [(b"tRNS", struct.pack(">3H", *deep[0, 0]))]),
        None, refused="more than 8 bits|one transparent colour", bits=16,
    )  # fmt: skip
    for alpha in (ALPHA, OPAQUE):
        for scale, bits in ((1, 8), (257, 16)):
            wide = np.uint16(scale)
            name = f"{bits} with {'some' if alpha is ALPHA else 'full'} alpha"
            clear = alpha is ALPHA
            grey_alpha = np.concatenate([GREY, alpha], 2) * wide
            colour_alpha = np.concatenate([COLOURS, alpha], 2) * wide
            yield Kind(
                f"PNG grey {name}", png(grey_alpha, bits, 4), over_white(three(GREY), alpha),
                bits=bits, clear=clear,
            )  # fmt: skip
            yield Kind(
                f"PNG RGB {name}", png(colour_alpha, bits, 6), over_white(COLOURS, alpha),
                bits=bits, clear=clear,
            )  # fmt: skip
    other = Image.fromarray(255 - COLOURS)
    frames = of_array(COLOURS, "PNG", save_all=True, append_images=[other])
    yield Kind("PNG animated", frames, None, refused=SEVERAL)
    text = zlib.compress(bytes(3 << 20))
    big = [
        (b"zTXt", b"Comment\0\0" + text),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + text),
        (b"iCCP", b"profile\0\0" + text),
        (b"tEXt", b"Software\0" + bytes(3 << 20)),
    ]
    for content in big:
        name = f"PNG with 3 MB of {content[0].decode()}"
        yield Kind(name, png(COLOURS, 8, 2, [content]), COLOURS)
        yield Kind(f"{name} behind it", png(COLOURS, 8, 2, (), [content]), COLOURS)
    wrong = bytearray(png(COLOURS, 8, 2, [(b"tEXt", b"a\0b")]))
    wrong[wrong.index(b"tEXt") + 4] ^= 1
    yield Kind("PNG with damaged text", bytes(wrong), COLOURS)


def _tiffs() -> Iterator[Kind]:
    colour, deep = COLOURS, DEEP
    yield Kind("TIFF grey 1", of_array(GREY > 127, "TIFF"), three((GREY > 127) * np.uint8(255)))
    yield Kind("TIFF grey 8", tiff(GREY, photometric=1), three(GREY))
    yield Kind("TIFF white is 0", tiff(GREY, photometric=0), three(255 - GREY))
    yield Kind(
        "TIFF grey 16", tiff(deep[..., :1], photometric=1), three(deep[..., :1] >> 8), bits=16
    )
    signed = tiff(deep[..., :1].astype(np.int16), photometric=1, form=2)
    yield Kind("TIFF grey 16 with a sign", signed, None, refused="8 bits|have a sign", bits=16)
    floats = deep[..., :1].astype(np.float32)
    yield Kind("TIFF float", tiff(floats, photometric=1, form=3), None, "more than", 32)
    whole = tiff(deep[..., :1].astype(np.int32), photometric=1, form=2)
    yield Kind("TIFF grey 32", whole, None, "more than", 32)
    yield Kind(
        "TIFF float RGB", tiff(deep.astype(np.float32), photometric=2, form=3), None,
        "more than", 32,
    )  # fmt: skip
    yield Kind("TIFF RGB 8", tiff(colour, photometric=2), colour)
    yield Kind("TIFF RGB 16", tiff(deep, photometric=2), deep >> 8, bits=16)
    yield Kind("TIFF CMYK 8", tiff(INKS, photometric=5), cmyk_as_rgb(INKS))
    wide = INKS * np.uint16(257)
    yield Kind("TIFF CMYK 16", tiff(wide, photometric=5), cmyk_as_rgb(INKS), bits=16)
    packed = of_array(deep[..., :1], "TIFF", compression="tiff_deflate")
    yield Kind("TIFF grey 16 deflated", packed, three(deep[..., :1] >> 8), bits=16)
    palette = Image.fromarray(GREY[..., 0] % 4, mode="P")
    palette.putpalette(colour.reshape(-1, 3)[:4].ravel().tolist())
    yield Kind("TIFF palette", saved(palette, "TIFF"), colour.reshape(-1, 3)[:4][GREY[..., 0] % 4])
    for alpha in (ALPHA, OPAQUE):
        name = f"with {'some' if alpha is ALPHA else 'full'} alpha"
        clear = alpha is ALPHA
        yield Kind(
            f"TIFF RGB {name}", tiff(np.concatenate([colour, alpha], 2), photometric=2, extra=[2]),
            over_white(colour, alpha), clear=clear,
        )  # fmt: skip
        multiplied = np.concatenate([colour * (alpha > 0), alpha], 2)
        yield Kind(
            f"TIFF RGB {name} multiplied in", tiff(multiplied, photometric=2, extra=[1]),
            over_white(colour, alpha), clear=clear,
        )  # fmt: skip
        yield Kind(
            f"TIFF RGB 16 {name}",
            tiff(np.concatenate([colour, alpha], 2) * np.uint16(257), photometric=2, extra=[2]),
            over_white(colour, alpha), bits=16, clear=clear,
        )  # fmt: skip
        yield Kind(
            f"TIFF grey {name}", tiff(np.concatenate([GREY, alpha], 2), photometric=1, extra=[2]),
            over_white(three(GREY), alpha), clear=clear,
        )  # fmt: skip
        grey = np.concatenate([GREY * (alpha > 0), alpha], 2)
        yield Kind(
            f"TIFF grey {name} multiplied in", tiff(grey, photometric=1, extra=[1]),
            over_white(three(GREY), alpha), clear=clear,
        )  # fmt: skip
    yield Kind(
        "TIFF grey 16 with alpha",
        tiff(np.concatenate([GREY, ALPHA], 2) * np.uint16(257), photometric=1, extra=[2]),
        None, refused="more than 8 bits|unknown pixel mode", bits=16,
    )  # fmt: skip
    pages = [colour, 255 - colour, colour]
    yield Kind("TIFF of three pages", tiff(*pages, photometric=2), None, SEVERAL)
    deep_pages = tiff(deep, deep, photometric=2)
    yield Kind("TIFF of two deep pages", deep_pages, None, SEVERAL, bits=16)
    smaller = colour[::2, ::2]
    for kind, what in ((1, "an overview"), (4, "a mask")):
        data = tiff(colour, smaller, photometric=2, kinds=[0, kind])
        yield Kind(f"TIFF with {what}", data, colour)
    thumbnail_first = tiff(smaller, colour, photometric=2, kinds=[1, 0])
    yield Kind("TIFF with a thumbnail first", thumbnail_first, None, SEVERAL)


def _others() -> Iterator[Kind]:
    clear = np.concatenate([COLOURS, ALPHA], 2)
    full = np.concatenate([COLOURS, OPAQUE], 2)
    exact = {"lossless": True, "exact": True}
    yield Kind("WebP RGB", of_array(COLOURS, "WEBP", **exact), COLOURS)
    yield Kind(
        "WebP some alpha", of_array(clear, "WEBP", **exact), over_white(COLOURS, ALPHA), clear=True
    )
    yield Kind("WebP full alpha", of_array(full, "WEBP", **exact), COLOURS)
    other = [Image.fromarray(255 - COLOURS)]
    frames = of_array(COLOURS, "WEBP", save_all=True, append_images=other, **exact)
    yield Kind("WebP animated", frames, None, refused=SEVERAL)
    yield Kind("GIF", of_array(GREY, "GIF"), three(GREY))
    moving = of_array(COLOURS, "GIF", save_all=True, append_images=other)
    yield Kind("GIF animated", moving, None, refused=SEVERAL)
    clear = of_array(GREY, "GIF", transparency=int(GREY[0, 0, 0]))
    over = np.where(GREY == GREY[0, 0, 0], 255, GREY)
    yield Kind("GIF transparent", clear, three(over), clear=True)
    for name, image in (
        ("grey", Image.fromarray(GREY[..., 0])),
        ("RGB", Image.fromarray(COLOURS)),
        ("CMYK", Image.fromarray(INKS, mode="CMYK")),
    ):
        data = saved(image, "JPEG", quality=95)
        shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        yield Kind(f"JPEG {name}", data, shown)
    data = of_array(COLOURS, "MPO", save_all=True, append_images=other)
    shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    yield Kind("JPEG with another behind it", data, shown, done="first picture of a JPEG file")
    twelve = bytearray(of_array(COLOURS, "JPEG"))
    twelve[twelve.index(b"\xff\xc0") + 4] = 12
    yield Kind("JPEG 12", bytes(twelve), None, "more than 8 bits|12-bit layers", bits=12)
    size = b"%d %d\n" % (WIDTH, HEIGHT)
    yield Kind("PBM", of_array(GREY > 127, "PPM"), three((GREY > 127) * np.uint8(255)))
    yield Kind("PGM 8", b"P5\n" + size + b"255\n" + GREY.tobytes(), three(GREY))
    yield Kind("PPM 8", b"P6 # a comment\n" + size + b"255\n" + COLOURS.tobytes(), COLOURS)
    deep = DEEP.astype(">u2")
    yield Kind(
        "PGM 16", b"P5\n" + size + b"65535\n" + deep[..., :1].tobytes(),
        three(DEEP[..., :1] >> 8), bits=16,
    )  # fmt: skip
    steep = COLOURS * np.uint16(257)
    yield Kind(
        "PPM 16", b"P6 # 255\n" + size + b"65535\n" + steep.astype(">u2").tobytes(), COLOURS,
        bits=16,
    )  # fmt: skip
    plain = b"P3\n" + size + b"1023\n" + b" ".join(b"%d" % v for v in (DEEP >> 6).ravel())
    yield Kind("PPM 10 in words", plain, (DEEP >> 8).astype(np.uint8), bits=10)
    floats = DEEP[..., :1].astype("<f4").tobytes()
    yield Kind("PFM", b"Pf\n" + size + b"-1.0\n" + floats, None, "more than", 32)
    yield Kind("BMP RGB", of_array(COLOURS, "BMP"), COLOURS)
    yield Kind("BMP 1", of_array(GREY > 127, "BMP"), three((GREY > 127) * np.uint8(255)))
    yield Kind("BMP grey", of_array(GREY, "BMP"), three(GREY))


def exif(entries: bytes, count: int) -> bytes:
    """EXIF of one directory with some entries of 12 bytes each, without the word Exif."""
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries + bytes(4)


def entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, count, value)


def broken_metadata() -> dict[str, tuple[bytes, int | None]]:
    """Damaged EXIF, and the orientation that it still says; None where it cannot be read."""
    turned = entry(0x112, 3, 1, 6)
    return {
        "cut header": (b"II*", None),
        "no magic": (b"garbage!garbage!", None),
        "only a header": (b"II*\0\x08\0\0\0", None),
        "many entries": (exif(entry(0x10F, 2, 1, 0), 60_000), None),
        "many entries behind it": (exif(turned, 60_000), 6),
        "loop": (b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + turned + struct.pack("<I", 8), 6),
        "text outside": (exif(entry(0x10F, 2, 999, 99_999) + turned, 2), 6),
        "EXIF directory outside": (exif(turned + entry(0x8769, 4, 1, 99_999), 2), 6),
        "GPS directory outside": (exif(turned + entry(0x8825, 4, 1, 99_999), 2), 6),
        "GPS directory as text": (exif(turned + entry(0x8825, 2, 4, 0x41414141), 2), 6),
        "EXIF directory as a float": (exif(turned + entry(0x8769, 11, 1, 0x7FC00000), 2), 6),
        "a negative length": (exif(turned + entry(0x100, 9, 1, 0xFFFFFFFF), 2), 6),
        "orientation 0": (exif(entry(0x112, 3, 1, 0), 1), None),
        "orientation 9": (exif(entry(0x112, 3, 1, 9), 1), None),
        "orientation as text": (exif(entry(0x112, 2, 4, 0x36363636), 1), None),
        "orientation not a number": (exif(entry(0x112, 11, 1, 0x7FC00000), 1), None),
        "orientation twice": (exif(entry(0x112, 3, 2, 6 | 3 << 16), 1), 6),
        "orientation of a strange type": (exif(entry(0x112, 99, 1, 6), 1), 1),
    }
