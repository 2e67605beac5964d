"""Transforms: draws that never change, geometry of image and map together, exact dither.

Statistical tests use fixed keys; each would fail a correct generator under a fresh key with a
probability below 1e-4.
"""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from shards.building.pictures import Pictures
from shards.errors import ShardError
from shards.reading.decode import decode
from shards.reading.transforms import Draw, Transforms, dithered, draws

GOLDEN_DRAWS = [
    Draw(7850899368064883426, 3802790986831217621, False),
    Draw(1166877682159768148, 3594712589169098138, True),
]
GOLDEN_DITHER = [43473, 1558, 13386, 32340, 56058, 41060]

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
any_draw = st.builds(Draw, *[st.integers(0, 2**63 - 1)] * 2, st.booleans())


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)


def dither(pixels: np.ndarray, seed: int = 0, position: int = 0) -> np.ndarray:
    out = np.empty(pixels.shape, dtype=np.float32)
    dithered(pixels, seed, position, out)
    return out


def test_golden_values() -> None:
    """These must never change: a resumed run depends on them."""
    assert draws(7, np.array([0, 2**40])) == GOLDEN_DRAWS
    black = np.zeros((1, 2, 3), dtype=np.uint8)
    assert (dither(black, 7, 2**40).ravel() * 2**24).tolist() == GOLDEN_DITHER


def test_draws_depend_on_seed_and_position_alone() -> None:
    p = np.arange(100)
    base = draws(0, p)
    assert base[30:40] == draws(0, p[30:40]) and base[::-1] == draws(0, p[::-1])
    assert not set(base) & set(draws(1, p))
    assert len({(d.top, d.left) for d in base}) == 100


def test_crops_are_uniform_and_flips_are_fair() -> None:
    """Chi-square over the 5 x 9 corners and both flips, jointly, at consecutive positions."""
    transforms = Transforms(crop=(4, 8), flip=True)
    n = 45 * 2 * 300
    table = np.zeros((5, 9, 2))
    for draw in draws(3, np.arange(n)):
        view = transforms.view((8, 16), draw)
        table[*view.corner, int(view.mirrored)] += 1
    assert 1e-4 < stats.chisquare(table.ravel()).pvalue < 1 - 1e-4


def test_draws_of_neighbours_are_independent() -> None:
    """Lag 1, and top with left with coin; each |z| < 4.5 (7e-6)."""
    n = 20_000
    table = np.array([(d.top, d.left, d.mirrored) for d in draws(5, np.arange(n))], dtype=float)
    series = [*table.T, *table[1:].T, *table[8:].T]
    for i in range(len(series)):
        for j in range(i):
            m = min(len(series[i]), len(series[j]))
            r = np.corrcoef(series[i][:m], series[j][:m])[0, 1]
            assert abs(r) * math.sqrt(m) < 4.5


@settings(max_examples=200)
@given(size=sizes, crop=sizes, draw=any_draw)
def test_image_and_map_stay_together(
    size: tuple[int, int], crop: tuple[int, int], draw: Draw
) -> None:
    """An image whose pixels say where they are, and the same as a map of 16 bits."""
    crop = min(size[0], crop[0]), min(size[1], crop[1])
    rows, columns = np.indices(size)
    labels = (rows * 256 + columns).astype(np.uint16)
    image = np.stack([rows, columns, rows * 0], axis=2).astype(np.uint8)
    for own in (draw, None):
        view = Transforms(crop=crop, flip=True).view(size, own)
        seen, mapped = view.image(image), view.map(labels)
        assert seen.shape == (*crop, 3) and mapped.shape == crop and mapped.dtype == np.uint16
        assert np.array_equal(seen[..., 0].astype(np.uint16) * 256 + seen[..., 1], mapped)
        top, left = view.corner
        kept = image[top : top + crop[0], left : left + crop[1]]
        assert np.array_equal(seen, kept[:, ::-1] if view.mirrored else kept)


@settings(max_examples=100)
@given(size=sizes, target=sizes)
def test_a_resize_in_evaluation_is_what_a_build_of_that_size_stores(
    size: tuple[int, int], target: tuple[int, int]
) -> None:
    pixels, labels = noise(*size, 3), noise(*size)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    stored = Pictures(target, "png")
    view = Transforms(resize=target, flip=True, dither=True).view(size, None)
    assert np.array_equal(view.image(pixels), decode(stored.encode(stream.getvalue()).data))
    mapped = np.asarray(Image.open(io.BytesIO(stored.encode_map(labels))))
    assert np.array_equal(view.map(labels), mapped)


@settings(max_examples=100)
@given(size=sizes, target=sizes, draw=any_draw)
def test_a_crop_is_cut_out_of_the_whole_resized_image(
    size: tuple[int, int], target: tuple[int, int], draw: Draw
) -> None:
    crop = max(1, target[0] // 2), max(1, target[1] // 2)
    view = Transforms(resize=target, crop=crop).view(size, draw)
    assert view.whole[0] >= target[0] and view.whole[1] >= target[1]
    assert view.whole[0] == target[0] or view.whole[1] == target[1]
    pixels, labels = noise(*size, 3), noise(*size)
    whole = (view.whole[1], view.whole[0])
    (top, left), (height, width) = view.corner, view.kept
    box = (left, top, left + width, top + height)
    image = Image.fromarray(pixels).resize(whole, Image.Resampling.BILINEAR).crop(box)
    assert np.array_equal(view.image(pixels), np.asarray(image))
    rows, columns = (
        np.floor((np.arange(n) + 0.5) * length / n + 1e-9).astype(int)
        for n, length in zip(view.whole, size, strict=True)
    )
    mapped = labels[rows][:, columns][top : top + height, left : left + width]
    assert np.array_equal(view.map(labels), mapped)


def test_the_map_of_an_enlarged_image_repeats_its_pixels() -> None:
    labels = noise(5, 7)
    view = Transforms(resize=(15, 21)).view((5, 7), None)
    assert np.array_equal(view.map(labels), labels.repeat(3, axis=0).repeat(3, axis=1))
    back = Transforms(resize=(5, 7)).view((15, 21), None)
    assert np.array_equal(back.map(view.map(labels)), labels)


def test_evaluation_sees_the_centre() -> None:
    transforms = Transforms(crop=(4, 4), flip=True, dither=True)
    view = transforms.view((10, 7), None)
    assert view.corner == (3, 2) and not view.mirrored  # 1.5 is rounded to even, as in torchvision
    assert Transforms().view((3, 5), draws(0, np.arange(1))[0]).kept == (3, 5)


@settings(max_examples=100)
@given(size=sizes, target=sizes)
def test_whole_images_are_what_a_resize_takes_its_centre_of(
    size: tuple[int, int], target: tuple[int, int]
) -> None:
    """One side is met exactly, the other is as long or longer; maps have no new ids."""
    view = Transforms(resize=target, whole=True, flip=True).view(size, None)
    (height, width), pixels, labels = view.kept, noise(*size, 3), noise(*size)
    assert (height == target[0] and width >= target[1]) or (
        width == target[1] and height >= target[0]
    )
    seen, mapped = view.image(pixels), view.map(labels)
    assert seen.shape == (height, width, 3) and mapped.shape == (height, width)
    assert set(np.unique(mapped)) <= set(np.unique(labels))
    cut = Transforms(resize=target).view(size, None)
    top, left = cut.corner
    kept = np.s_[top : top + target[0], left : left + target[1]]
    assert np.array_equal(seen[kept], cut.image(pixels))
    assert np.array_equal(mapped[kept], cut.map(labels))


def test_dither_is_exact_uniform_and_below_one() -> None:
    """Rounding down gives the pixels back; the rest is uniform (Kolmogorov-Smirnov, 1e-4)."""
    pixels = np.repeat(np.arange(256, dtype=np.uint8), 64 * 3).reshape(64, 256, 3)
    values = dither(pixels)
    assert values.dtype == np.float32 and values.min() >= 0 and values.max() < 1
    assert np.array_equal(np.floor(values * 256), pixels)
    u = values.astype(float) * 256 - pixels
    assert stats.kstest(u.ravel() + 2.0**-17, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(u.ravel()[:-1], u.ravel()[1:])[0, 1]) * math.sqrt(u.size) < 4.5
    white = dither(np.full((512, 512, 3), 255, dtype=np.uint8), position=9)
    assert white.max() == np.float32(1 - 2.0**-24)  # met once in 65536 values


def test_dither_depends_on_seed_and_position_alone() -> None:
    pixels = noise(8, 8, 3)
    assert np.array_equal(dither(pixels, 1, 2), dither(pixels, 1, 2))
    assert not np.array_equal(dither(pixels, 1, 2), dither(pixels, 1, 3))
    assert not np.array_equal(dither(pixels, 1, 2), dither(pixels, 2, 2))
    odd = noise(1, 1, 3)  # not a multiple of the generator's word
    assert np.array_equal(np.floor(dither(odd) * 256), odd)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"is 3x9 \(height x width\), too small for the crop 4x4"):
        Transforms(crop=(4, 4)).view((3, 9), None)
    with pytest.raises(ShardError, match=r"crop 9x8 .* larger than the resize 8x8"):
        Transforms(resize=(8, 8), crop=(9, 8))
    with pytest.raises(ShardError, match=r"the crop 0x4 \(height x width\) has a side below 1"):
        Transforms(crop=(0, 4))
    for wrong in ({}, {"resize": (8, 8), "crop": (4, 4)}):
        with pytest.raises(ShardError, match="only with a resize and without a crop"):
            Transforms(whole=True, **wrong)
