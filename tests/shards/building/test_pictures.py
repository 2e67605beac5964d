"""The geometry is torchvision's to the pixel, maps stay on their images, storage keeps its word."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from shards.building.pictures import Pictures, parse_size, pictures
from shards.errors import ShardError
from shards.reading import decode
from shards.reading.transforms import Transforms

SIDES = st.integers(1, 600)


def file_of(pixels: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    high = np.iinfo(dtype).max + 1
    return np.random.default_rng(0).integers(0, high, shape, dtype=dtype)


class Window(NamedTuple):
    """A scaled image, and the corner of the crop inside it; pixels."""

    height: int
    width: int
    top: int
    left: int


def window(height: int, width: int, size: tuple[int, int]) -> Window:
    view = Transforms(resize=size).view((height, width), None)
    return Window(*view.whole, *view.corner)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@given(SIDES, SIDES, st.integers(1, 300))
def test_a_square_is_scaled_and_cropped_as_torchvision_does(h: int, w: int, size: int) -> None:
    """`Resize(size)`: torchvision.transforms.functional._compute_resized_output_size; then
    `CenterCrop(size)`: torchvision.transforms.functional.center_crop."""
    short, long = (w, h) if w <= h else (h, w)
    new_short, new_long = size, int(size * long / short)
    new_w, new_h = (new_short, new_long) if w <= h else (new_long, new_short)
    top, left = round((new_h - size) / 2.0), round((new_w - size) / 2.0)
    assert window(h, w, (size, size)) == (new_h, new_w, top, left)


@given(SIDES, SIDES, st.tuples(SIDES, SIDES))
def test_any_size_is_covered_with_one_side_exact(h: int, w: int, size: tuple[int, int]) -> None:
    at = window(h, w, size)
    assert (at.height == size[0] and at.width >= size[1]) or (
        at.width == size[1] and at.height >= size[0]
    )
    assert 0 <= at.top <= at.height - size[0] and 0 <= at.left <= at.width - size[1]


def test_celeba_keeps_the_full_width_of_the_face() -> None:
    assert window(218, 178, (64, 64)) == (78, 64, 7, 0)
    pixels = noise(218, 178, 3)
    stored = Pictures((64, 64), "png").encode_pixels(pixels)
    whole = Image.fromarray(pixels).resize((64, 78), Image.Resampling.BILINEAR)
    assert (stored.ext, stored.width, stored.height) == ("png", 64, 64)
    assert np.array_equal(decode.decode(stored.data), np.asarray(whole)[7:71])


@pytest.mark.parametrize("size", [(50, 100), (33, 57), (128, 128), (300, 200)])
def test_a_map_is_what_pillow_gives_by_nearest(size: tuple[int, int]) -> None:
    """Centres on the border of two pixels are left out: there Pillow's rounding decides."""
    labels = noise(128, 256)
    at = window(128, 256, size)
    whole = Image.fromarray(labels).resize((at.width, at.height), Image.Resampling.NEAREST)
    box = (at.left, at.top, at.left + size[1], at.top + size[0])
    y, x = np.mgrid[box[1] : box[3], box[0] : box[2]]
    clear = ((2 * y + 1) * 128 % (2 * at.height) != 0) & ((2 * x + 1) * 256 % (2 * at.width) != 0)
    found = np.asarray(opened(Pictures(size, "png").encode_map(labels)))
    assert np.array_equal(found[clear], np.asarray(whole.crop(box))[clear])
    assert clear.mean() > 0.9


@given(st.integers(1, 40), st.integers(1, 40), st.tuples(st.integers(1, 50), st.integers(1, 50)))
def test_maps_hold_only_ids_that_were_there(h: int, w: int, size: tuple[int, int]) -> None:
    labels = (np.arange(h * w, dtype=np.uint16) * 997 + 40000).reshape(h, w)
    found = np.asarray(opened(Pictures(size, "webp").encode_map(labels)))
    assert found.shape == size and found.dtype == np.uint16
    assert set(found.ravel().tolist()) <= set(labels.ravel().tolist())


@pytest.mark.parametrize("size", [(32, 64), (48, 48), (21, 80), (64, 128)])
def test_the_pixels_of_map_and_image_have_the_same_centres(size: tuple[int, int]) -> None:
    """A ramp of 8 a pixel shows the centre's coordinate: bilinear gives it, nearest within half."""
    ramp = np.broadcast_to(np.arange(128, dtype=np.uint8), (64, 128))
    stored = Pictures(size, "png")
    image = np.asarray(opened(stored.encode_pixels(ramp).data)).astype(float)
    labels = np.asarray(opened(stored.encode_map(ramp))).astype(float)
    inner = (slice(None), slice(2, -2))  # at the border the filter sees less
    assert np.abs(image[inner] - labels[inner]).max() <= 1.0
    assert abs((image[inner] - labels[inner]).mean()) <= 0.5


def test_maps_of_16_bits_without_a_size_are_exact() -> None:
    labels = noise(20, 30, dtype=np.uint16)
    assert np.array_equal(np.asarray(opened(Pictures(None, "png").encode_map(labels))), labels)


@pytest.mark.parametrize("storage", ["png", "webp"])
@pytest.mark.parametrize("shape", [(37, 21, 3), (37, 21)])
def test_png_and_webp_lose_nothing(storage: str, shape: tuple[int, ...]) -> None:
    pixels = noise(*shape)
    stored = Pictures(None, storage).encode_pixels(pixels)
    assert (stored.ext, stored.width, stored.height) == (storage, 21, 37)
    rgb = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    assert np.array_equal(decode.decode(stored.data), rgb)
    if storage == "png":
        assert opened(stored.data).mode == ("RGB" if pixels.ndim == 3 else "L")


def test_jpeg_keeps_its_quality_and_its_colour() -> None:
    pixels = np.asarray(Image.fromarray(noise(8, 8, 3)).resize((64, 64)))
    errors, sizes = [], []
    for quality in (50, 95, 100):
        stored = Pictures(None, f"jpeg:{quality}").encode_pixels(pixels)
        image = opened(stored.data)
        assert (stored.ext, image.format, image.size) == ("jpg", "JPEG", (64, 64))
        assert [part[1:3] for part in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]
        errors.append(np.abs(decode.decode(stored.data).astype(int) - pixels).mean())
        sizes.append(len(stored.data))
        same = io.BytesIO()
        Image.fromarray(pixels).save(same, "JPEG", quality=quality, subsampling=0)
        assert same.getvalue() == stored.data
    assert errors == sorted(errors, reverse=True) and sizes == sorted(sizes)
    assert errors[-1] < 1
    grey = opened(Pictures(None, "jpeg:90").encode_pixels(noise(9, 9)).data)
    assert grey.mode == "L"


def test_original_bytes_are_kept_once_they_decode() -> None:
    data = file_of(noise(20, 30, 3), "JPEG", quality=80)
    assert Pictures(None, "original").encode(data) == (data, "jpg", 30, 20, ())
    with pytest.raises(ValueError, match=r"(?i)truncated"):
        Pictures(None, "original").encode(data[: len(data) // 2])
    with pytest.raises(ValueError, match="none of the formats"):
        Pictures(None, "png").encode(b"not a picture")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_orientation_is_applied_to_pixels_and_not_to_kept_bytes(
    orientation: int, mode: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    sharp = np.asarray(Image.fromarray(noise(20, 30, 3)).convert(mode))
    data = file_of(sharp, "PNG", exif=exif)
    rows_are_columns = orientation >= 5
    stored = Pictures(None, "png").encode(data)
    assert (stored.width, stored.height) == ((20, 30) if rows_are_columns else (30, 20))
    turned = {
        1: sharp, 2: sharp[:, ::-1], 3: sharp[::-1, ::-1], 4: sharp[::-1],
        5: sharp.swapaxes(0, 1), 6: np.rot90(sharp, -1), 7: sharp[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(sharp),
    }[orientation]  # fmt: skip
    found = np.asarray(opened(stored.data).convert(mode))
    assert np.array_equal(found, turned)
    assert Pictures(None, "original").encode(data)[:1] == (data,)
    assert Pictures(None, "original").encode(data)[2:4] == (30, 20)


def test_nothing_but_pixels_is_stored() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = noise(8, 8, 3)
    data = file_of(pixels, "PNG", icc_profile=profile, transparency=(1, 2, 3), dpi=(72, 72))
    for storage in ("png", "webp", "jpeg:90"):
        stored = Pictures(None, storage).encode(data)
        plain = Pictures(None, storage).encode_pixels(pixels)
        assert stored == plain


def test_deep_images_are_refused() -> None:
    for deep in (noise(9, 9, dtype=np.uint16), noise(9, 9).astype(np.float32)):
        form = "TIFF" if deep.dtype == np.float32 else "PNG"
        for storage in ("png", "original"):
            with pytest.raises(ValueError, match="more than 8 bits a channel"):
                Pictures(None, storage).encode(file_of(deep, form))


def test_an_image_too_long_for_its_format_says_so() -> None:
    with pytest.raises(ValueError, match="limit of 16383 pixels"):
        Pictures(None, "webp").encode_pixels(np.zeros((1, 16384, 3), np.uint8))


def test_sizes_and_storages() -> None:
    assert parse_size("64") == (64, 64) and parse_size("512x1024") == (512, 1024)
    assert pictures(None, None, "original") == Pictures(None, "original")
    assert pictures("64", None, "original") == Pictures((64, 64), "png")
    assert pictures("64", "webp", "png") == Pictures((64, 64), "webp")
    assert pictures(None, "jpeg:95", "original").transform().storage == "jpeg:95"
    transform = pictures("512x1024", None, "png").transform()
    assert transform.size == (512, 1024) and "centre crop" in transform.geometry


@pytest.mark.parametrize(
    ("size", "storage", "message"),
    [
        ("big", None, "the size 'big' is neither a side such as 64 nor a height x width"),
        ("64x", None, "neither a side"),
        ("0", None, "a side outside 1 to 16383 pixels"),
        ("64x20000", None, "a side outside 1 to 16383"),
        (None, "gif", "the storage 'gif' is not one of original, png, webp"),
        (None, "jpeg", "not one of .*jpeg:<quality 1 to 100>"),
        (None, "jpeg:0", "not one of"),
        (None, "jpeg:101", "not one of"),
        ("64", "original", "original bytes cannot be resized to 64: leave the size out or"),
    ],
)
def test_bad_options(size: str | None, storage: str | None, message: str) -> None:
    with pytest.raises(ShardError, match=message):
        pictures(size, storage, "png")


def test_arrays_have_no_original_bytes() -> None:
    with pytest.raises(ShardError, match="no image files, so it has no original bytes"):
        pictures(None, "original", "png", arrays=True)
    with pytest.raises(ShardError, match="no original bytes"):
        Pictures(None, "original").encode_pixels(noise(4, 4))
