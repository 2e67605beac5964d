"""What `gencomp compress` makes of image files of every kind: one rule each, or one sentence."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.compressed_files.images import converted, decoded
from gencomp.errors import InputError
from shards.reading.decode import LAID_OVER_WHITE, UPPER_BITS_KEPT
from tests.shards.image_kinds import Kind, kinds

PATH = Path("picture")
COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = COLOURS[..., 0]
DEEP = np.random.default_rng(1).integers(0, 65536, (5, 7), dtype=np.uint16)


def file(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def three(grey_HW: np.ndarray) -> np.ndarray:
    return np.stack([grey_HW] * 3, axis=2)


def deep_colour_png(pixels_HW3: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write."""
    height, width = pixels_HW3.shape[:2]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels_HW3)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "BMP", "PPM"])
def test_colours_stay_as_they_are(form: str) -> None:
    data = file(Image.fromarray(COLOURS), form, **({"lossless": True} if form == "WEBP" else {}))
    assert np.array_equal(decoded(data, PATH), COLOURS)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP", "PPM"])
def test_grey_becomes_three_equal_channels(form: str) -> None:
    assert np.array_equal(decoded(file(Image.fromarray(GREY), form), PATH), three(GREY))
    bits = Image.fromarray(GREY > 127)
    assert np.array_equal(decoded(file(bits, form), PATH), three(255 * (GREY > 127)))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_of_16_bits_the_upper_8_are_kept(form: str) -> None:
    assert np.array_equal(decoded(file(Image.fromarray(DEEP), form), PATH), three(DEEP >> 8))


def test_of_16_bits_of_colour_the_upper_8_are_kept() -> None:
    deep = np.random.default_rng(2).integers(0, 65536, (4, 6, 3), dtype=np.uint16)
    assert np.array_equal(decoded(deep_colour_png(deep), PATH), deep >> 8)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_transparent_pixels_are_laid_over_white(form: str) -> None:
    alpha = np.zeros_like(GREY)
    alpha[1:] = 255
    picture = Image.fromarray(np.dstack([COLOURS, alpha]))
    data = file(picture, form, **({"lossless": True} if form == "WEBP" else {}))
    found = decoded(data, PATH)
    assert (found[0] == 255).all()
    assert np.array_equal(found[1:], COLOURS[1:])


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    alpha = np.full_like(GREY, 51)  # a fifth
    found = decoded(file(Image.fromarray(np.dstack([COLOURS, alpha]))), PATH)
    assert abs(found - (0.2 * COLOURS + 0.8 * 255)).max() <= 1
    found = decoded(file(Image.fromarray(np.dstack([GREY, alpha]))), PATH)
    assert abs(found - three(0.2 * GREY + 0.8 * 255)).max() <= 1


def test_a_palette_becomes_its_colours() -> None:
    palette = Image.fromarray(GREY % 4, mode="P")
    colours = np.array([(1, 2, 3), (40, 50, 60), (200, 100, 0), (9, 255, 9)], np.uint8)
    palette.putpalette(colours.ravel().tolist())
    assert np.array_equal(decoded(file(palette), PATH), colours[GREY % 4])
    colours[2] = 255  # laid over white
    found = decoded(file(palette, transparency=2), PATH)
    assert np.array_equal(found, colours[GREY % 4])


def test_cmyk_becomes_rgb_by_its_formula() -> None:
    inks = np.random.default_rng(3).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    found = decoded(file(Image.fromarray(inks, mode="CMYK"), "TIFF"), PATH)
    inks = inks.astype(int)
    assert abs(found - (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255).max() <= 1
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert abs(decoded(file(image, "JPEG"), PATH).astype(int) - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize("turn", range(1, 9))
def test_images_are_turned_upright(turn: int) -> None:
    exif = Image.Exif()
    exif[0x112] = turn
    transposed, upside_down, mirrored = turn >= 5, turn in (3, 4, 7, 8), turn in (2, 3, 6, 7)
    for image in (Image.fromarray(COLOURS), Image.fromarray(GREY), Image.fromarray(DEEP)):
        plain = decoded(file(image), PATH)
        shown = plain.transpose(1, 0, 2) if transposed else plain
        shown = shown[::-1] if upside_down else shown
        shown = shown[:, ::-1] if mirrored else shown
        assert np.array_equal(decoded(file(image, exif=exif), PATH), shown), turn


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_images_of_32_bits_are_refused_in_one_sentence(dtype: type) -> None:
    data = file(Image.fromarray(np.full((5, 7), 70_000, dtype)), "TIFF")
    with pytest.raises(InputError, match=r"^picture is not taken: it has 32 bits a channel"):
        decoded(data, PATH)


def test_what_is_no_image_is_refused() -> None:
    for data in (b"", b"no image", file(Image.fromarray(COLOURS))[:60]):
        with pytest.raises(InputError, match=r"^picture is not a readable image: "):
            decoded(data, PATH)


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.name)
def test_every_kind_of_file_has_a_rule_or_a_reason(kind: Kind) -> None:
    if kind.rgb is None:
        with pytest.raises(InputError, match=rf"^picture is not .*({kind.refused or '.'})"):
            converted(kind.data, PATH)
        return
    found = converted(kind.data, PATH)
    assert abs(found.pixels.astype(int) - kind.rgb).max() <= (1 if kind.bits > 8 else 0)
    assert (UPPER_BITS_KEPT in found.done) == (kind.bits > 8)
    assert (LAID_OVER_WHITE in found.done) == kind.clear
    assert len(found.done) == (kind.bits > 8) + kind.clear + bool(kind.done)


def test_no_more_pixels_than_asked_for() -> None:
    data = file(Image.fromarray(COLOURS))
    assert converted(data, PATH, max_pixels=35).pixels.shape == (5, 7, 3)
    with pytest.raises(
        InputError, match=r"7x5 pixels exceed the limit of 34 pixels: raise --max-pixels"
    ):
        converted(data, PATH, max_pixels=34)
