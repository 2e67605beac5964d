"""Classical codecs: what they write they read, rates follow the ladder."""

from __future__ import annotations

import lzma

import numpy as np
import pytest
from skimage import data
from skimage.transform import resize

from gencomp.coding import classical
from gencomp.errors import InputError

INSTALLED = classical.codecs()


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """64 rows of 80 pixels of a photograph."""
    small = resize(data.astronaut(), (80, 80), anti_aliasing=True)[:64]
    return (255 * small).round().astype(np.uint8)


def mse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a.astype(float) - b).mean())


def test_those_of_every_pillow_are_there() -> None:
    assert {"JPEG", "WebP", "JPEG 2000"} <= {codec.name for codec in INSTALLED}


@pytest.mark.parametrize("codec", INSTALLED, ids=lambda codec: codec.name)
class TestEach:
    def test_files_decode_and_rates_rise(
        self, codec: classical.ClassicalCodec, image: np.ndarray
    ) -> None:
        """Files grow up the ladder, but for dips of 3 %, and what they show comes nearer."""
        (points,) = classical.curve([image], codec)
        assert [point.quality for point in points] == list(codec.ladder)
        assert list(codec.ladder) == sorted(codec.ladder)
        bits = np.array([point.bits for point in points])
        assert (bits >= 0.97 * np.maximum.accumulate(bits)).all() and bits[-1] > 4 * bits[0]
        errors = [mse(point.image_HWC, image) for point in points]
        assert errors[-1] < 0.2 * errors[0] and errors[-1] == pytest.approx(min(errors), rel=0.1)
        for point in points[:: len(points) // 3]:
            data = codec.encode(image, point.quality)
            assert point.image_HWC.dtype == np.uint8 and point.image_HWC.shape == image.shape
            assert 8 * len(data) == point.bits
            assert np.array_equal(codec.decode(data), point.image_HWC)

    def test_some_qualities_of_several_images(
        self, codec: classical.ClassicalCodec, image: np.ndarray
    ) -> None:
        chosen = codec.ladder[3:6]
        rows = list(classical.curve([image, image[::-1]], codec, chosen))
        assert [[point.quality for point in row] for row in rows] == [list(chosen)] * 2


@pytest.mark.parametrize("codec", INSTALLED, ids=lambda codec: codec.name)
def test_an_archive_of_small_files_has_their_headers_once(
    codec: classical.ClassicalCodec, image: np.ndarray
) -> None:
    """A second file for an archive decodes to the same pixels."""
    crops = [image[y : y + 32, x : x + 32] for y in range(0, 33, 4) for x in range(0, 49, 4)]
    quality = codec.ladder[2]
    files = [codec.encode(crop, quality) for crop in crops]
    if (in_archive := codec.in_archive) is not None:
        others = [in_archive(crop, quality) for crop in crops]
        for file, other in zip(files, others, strict=True):
            assert np.array_equal(codec.decode(file), codec.decode(other))
        assert len(classical.archive(others)) < len(classical.archive(files))
        files = others
    # The length table and the archive's own header are all that one file costs more.
    assert len(classical.archive(files[:1])) <= len(files[0]) + 9
    assert len(classical.archive(files)) < sum(map(len, files))


def test_the_archive_holds_every_byte() -> None:
    rng = np.random.default_rng(0)
    files = [rng.bytes(length) for length in (40, 3, 5000, 700)]
    plain = classical.archive(files)
    assert plain.endswith(b"".join(files)) and len(plain) == 9 + 7 + 5743
    alike = [bytes(range(200)) + rng.bytes(20) for _ in range(50)]
    assert b"".join(alike) in lzma.decompress(classical.archive(alike))
    large = [bytes(8000)] * 3
    assert classical.archive(large).endswith(b"".join(large))


def test_unknown_or_missing_codecs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no image codec BPG; there are JPEG, WebP"):
        classical.codec("BPG")
    monkeypatch.setattr(classical, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="JPEG XL is not installed: pip install imagecodecs"):
        classical.codec("JPEG XL")
    assert "JPEG XL" not in {codec.name for codec in classical.codecs()}


class TestLossless:
    @pytest.mark.parametrize("name", ["PNG", "WebP", "JPEG 2000", "JPEG XL"])
    def test_images_come_back(self, name: str, image: np.ndarray) -> None:
        if name == "JPEG XL":
            pytest.importorskip("imagecodecs")
        codec = classical.lossless(name)
        for one in (image, image[:1, :1], np.zeros((5, 3, 3), np.uint8)):
            (coded,) = next(classical.curve([one], codec))
            assert np.array_equal(coded.image_HWC, one)
        assert coded.bits < 8 * 400

    def test_unknown_ones_are_refused(self) -> None:
        with pytest.raises(InputError, match="no lossless codec JPEG; there are PNG, WebP"):
            classical.lossless("JPEG")
