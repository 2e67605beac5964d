"""What is in a file is read from its header, whatever Pillow would make of it."""

from __future__ import annotations

import io
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from shards.reading.decode import (
    ALPHA_DROPPED,
    TAKEN_AS_STORED,
    NotTaken,
    converted,
    decode,
    image_size,
    left_out,
    load,
)
from shards.reading.image_headers import FORMATS, header, orientation
from tests.shards.image_kinds import (
    COLOURS,
    HEIGHT,
    SEVERAL,
    WIDTH,
    Kind,
    broken_metadata,
    kinds,
    png,
    saved,
)

KINDS = [kind for kind in kinds() if "none of the formats" not in kind.refused]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_header_says_bits_and_pages(kind: Kind) -> None:
    found = header(kind.data)
    assert max(found.bits, 8) == kind.bits
    assert found.several == (kind.refused == SEVERAL)
    assert found.followed == bool(kind.done)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_index_refuses_what_reading_cannot_show(kind: Kind) -> None:
    if kind.bits > 8 or kind.refused == SEVERAL:
        with pytest.raises(NotTaken, match=rf"more than 8 bits|{SEVERAL}"):
            image_size(kind.data)
    else:
        assert image_size(kind.data) == (WIDTH, HEIGHT)
        assert left_out(kind.data) == [ALPHA_DROPPED] * kind.clear
        assert FORMATS[header(kind.data).format] in {
            "png",
            "jpg",
            "webp",
            "bmp",
            "ppm",
            "tif",
            "gif",
        }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_reading_refuses_more_than_8_bits_of_any_colour(kind: Kind) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if kind.bits > 8:
            with pytest.raises(ValueError, match=r"more than 8 bits"):
                decode(kind.data)
            return
        found = decode(kind.data)
    if kind.rgb is not None and not kind.clear:
        assert np.array_equal(found, kind.rgb)


def with_exif(content: bytes) -> dict[str, bytes]:
    image = Image.fromarray(COLOURS)
    return {
        "PNG": png(COLOURS, 8, 2, [(b"eXIf", content)]),
        "PNG behind": png(COLOURS, 8, 2, (), [(b"eXIf", content)]),
        "JPEG": saved(image, "JPEG", exif=b"Exif\0\0" + content),
        "WEBP": saved(image, "WEBP", exif=content, lossless=True),
    }


@pytest.mark.parametrize("name", broken_metadata())
def test_metadata_is_read_for_the_orientation_alone(name: str) -> None:
    content, turn = broken_metadata()[name]
    for where, data in with_exif(content).items():
        plain = Image.open(io.BytesIO(with_exif(b"")[where]))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert orientation(header(data)) == turn, where
            found = converted(load(data))
        shown = np.asarray(plain)
        assert np.array_equal(found.pixels, np.rot90(shown, -1) if turn == 6 else shown), where
        assert found.done == ((TAKEN_AS_STORED,) if turn is None else ()), where


def test_threads_that_read_tiff_files_leave_warnings_and_limits_alone() -> None:
    kind = next(kind for kind in KINDS if kind.name == "TIFF RGB 8")
    before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(decode, [kind.data] * 400):
            assert np.array_equal(found, COLOURS)
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" dc:title="\xe9"/></x:xmpmeta>'


def test_the_orientation_in_xmp_is_read_as_pillow_reads_it() -> None:
    image = Image.fromarray(COLOURS)
    files = [
        png(COLOURS, 8, 2, [(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)]),
        saved(image, "JPEG", xmp=XMP),
        saved(image, "WEBP", xmp=XMP, lossless=True),
    ]
    assert [orientation(header(data)) for data in files] == [6, 6, 6]


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_raw_profile_of_imagemagick_holds_the_orientation(turn: int) -> None:
    tags = Image.Exif()
    tags[0x112] = turn
    text = f"\nexif\n{len(tags.tobytes()):8}\n{tags.tobytes().hex()}\n".encode()
    data = png(COLOURS, 8, 2, [(b"tEXt", b"Raw profile type exif\0" + text)])
    assert orientation(header(data)) == turn


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_damaged_files_are_refused_with_a_reason(kind: Kind) -> None:
    """Cut or changed anywhere: `ValueError`, or a picture, and nothing else."""
    random = np.random.default_rng(1)
    small = kind.data if len(kind.data) < 10_000 else b""
    for _ in range(10 if small else 0):
        data = bytearray(small)
        for place in random.integers(0, len(data), 3):
            data[place] = random.integers(0, 256)
        cut = bytes(data[: random.integers(0, len(data))])
        for damaged in (bytes(data), cut):
            for function in (
                decode,
                image_size,
                lambda damaged: converted(load(damaged, 1 << 20, 16)),
            ):
                try:
                    function(damaged)
                except ValueError as error:
                    assert str(error)


def test_a_gif_whose_frame_is_larger_than_it_says_is_refused_by_the_frame() -> None:
    """Pillow would enlarge the picture, and its own limit would end the command."""
    buffer = io.BytesIO()
    Image.new("L", (4, 3)).save(buffer, "GIF")
    data = bytearray(buffer.getvalue())
    at = data.index(b"\x2c\0\0\0\0\x04\0\x03\0")
    assert header(bytes(data)).size == (4, 3)
    data[at + 5 : at + 9] = struct.pack("<HH", 60_000, 50_000)
    assert header(bytes(data)).size == (60_000, 50_000)
    with pytest.raises(ValueError, match="60000x50000 pixels exceed the limit"):
        decode(bytes(data))
