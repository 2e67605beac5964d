"""Decoding: the fast JPEG path gives the pixels of Pillow for every kind of JPEG."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from shards.reading.decode import decode, image_size, open_rgb, stated_pixels
from shards.reading.image_headers import FORMATS, header

SIZES = [(1, 1), (1, 2), (2, 1), (3, 5), (8, 8), (7, 17), (16, 33), (101, 67)]
SUBSAMPLINGS = ["4:4:4", "4:2:2", "4:2:0", "4:1:1"]


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, channels), dtype=np.uint8)


def file(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = 6  # to be shown a quarter turn on
    return exif


@pytest.mark.parametrize("height,width", SIZES)
def test_jpegs_of_every_kind_have_the_pixels_of_pillow(height: int, width: int) -> None:
    colour = Image.fromarray(noise(height, width))
    kinds = {
        "grey": file(colour.convert("L")),
        "progressive grey": file(colour.convert("L"), progressive=True),
        "CMYK": file(colour.convert("CMYK")),
        "YCCK": simplejpeg.encode_jpeg(noise(height, width, 4), colorspace="CMYK"),
        "RGB": file(colour, keep_rgb=True),
        "4:4:0": simplejpeg.encode_jpeg(noise(height, width), colorsubsampling="440"),
        "turned by its tag": file(colour, exif=turned()),
        "restart markers": file(colour, restart_marker_blocks=1),
        "two pictures": file(colour, "MPO", save_all=True, append_images=[colour]),
    }
    for subsampling in SUBSAMPLINGS:
        for progressive in (False, True):
            kinds[f"{subsampling} {progressive}"] = file(
                colour, subsampling=subsampling, progressive=progressive, quality=60
            )
    out = np.empty((height, width, 3), dtype=np.uint8)
    for kind, data in kinds.items():
        assert np.array_equal(decode(data), pillow(data)), kind
        out[:] = 0
        assert decode(data, out) is out
        assert np.array_equal(out, pillow(data)), kind
        assert (FORMATS[header(data).format], image_size(data)) == ("jpg", (width, height))


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP", "PPM", "TIFF"])
def test_lossless_formats_give_the_pixels_back(form: str) -> None:
    pixels = noise(9, 14)
    data = file(Image.fromarray(pixels), form, **({"lossless": True} if form == "WEBP" else {}))
    out = np.empty_like(pixels)
    assert decode(data, out) is out
    assert np.array_equal(out, pixels) and np.array_equal(decode(data), pixels)


def test_grey_is_repeated_and_alpha_is_dropped() -> None:
    pixels = noise(6, 5, 4)
    assert np.array_equal(decode(file(Image.fromarray(pixels), "PNG")), pixels[..., :3])
    grey = decode(file(Image.fromarray(pixels[..., 0]), "PNG"))
    assert np.array_equal(grey, np.repeat(pixels[..., :1], 3, axis=2))


def test_an_array_of_another_shape_is_left_alone() -> None:
    pixels = noise(8, 8)
    for data in (file(Image.fromarray(pixels)), file(Image.fromarray(pixels), "PNG")):
        other = np.zeros((8, 9, 3), dtype=np.uint8)
        image = decode(data, other)
        assert image is not other and image.shape == (8, 8, 3) and not other.any()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM"])
def test_stated_pixels_of_any_number(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (7, 5)).save(tmp_path / "image", form)
    (tmp_path / "text").write_text("no image", encoding="utf-8")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stated_pixels(tmp_path / "image") == 35
    assert stated_pixels(tmp_path / "text") == stated_pixels(tmp_path / "nowhere") == 0
    assert Image.MAX_IMAGE_PIXELS == 2


def test_damage_is_refused_with_a_reason() -> None:
    whole = file(Image.fromarray(noise(64, 64)))
    for data, reason in [
        (whole[: len(whole) // 2], "truncated"),
        (b"not an image", "none of the formats PNG, JPEG"),
        (b"\xff\xd8\xff\xe0" + bytes(20), "."),
        (file(Image.fromarray(noise(8, 8)), "PNG")[:60], "."),
        (file(Image.fromarray(noise(8, 8)[..., 0].astype(np.uint16)), "PNG"), "more than 8 bits"),
        (png_of_size(100_000, 100_000), "exceed the limit of 268435456 pixels"),
    ]:
        with pytest.raises(ValueError, match=reason):
            decode(data)
        with pytest.raises(ValueError, match=reason):
            open_rgb(data)


def png_of_size(height: int, width: int) -> bytes:
    """A PNG that claims this size."""
    data = bytearray(file(Image.fromarray(noise(2, 2)), "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)
