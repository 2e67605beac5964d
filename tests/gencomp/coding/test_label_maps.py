from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image

from gencomp.coding import adaptive_bits
from gencomp.coding.label_maps import decode, encode
from gencomp.errors import InputError
from tests.gencomp.coding.street_scenes import room, street

GOLDEN = "d316aca30dbcb51f905b52f112b73014d1a800fa8ed58149a4ac84530efbc4c08b06c63fb77d46372530"


def scenes() -> list[np.ndarray]:
    return [street(seed)[0] for seed in range(4)] + [room(seed) for seed in range(4)]


def same_after(map_HW: np.ndarray, classes: int, known=None, given=None) -> bytes:  # type: ignore[no-untyped-def]
    data = encode(map_HW, classes, known, given)
    expected = map_HW if known is None else np.where(known, map_HW, 0)
    found = decode(data, *map_HW.shape, classes, known, given)
    assert found.dtype == np.int64
    assert np.array_equal(found, expected)
    return data


def test_maps_of_any_shape_and_content_come_back() -> None:
    generator = np.random.default_rng(0)
    for _ in range(60):
        height, width = generator.integers(1, 40, 2)
        classes = int(generator.choice([1, 2, 3, 12, 200, 255, 256, 257, 1000, 65536]))
        side = int(generator.integers(1, 12))
        coarse = generator.integers(0, classes, (height // side + 1, width // side + 1))
        map_HW = np.kron(coarse, np.ones((side, side), np.int64))[:height, :width]
        noisy = generator.random((height, width)) < generator.choice([0, 0.02, 1])
        map_HW = np.where(noisy, generator.integers(0, classes, (height, width)), map_HW)
        known = generator.random((height, width)) < 0.5 if generator.random() < 0.3 else None
        given = coarse.repeat(side, 0).repeat(side, 1)[:height, :width] // 2
        same_after(map_HW, classes, known, given if generator.random() < 0.3 else None)


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (2, 2), (33, 64)])
def test_extreme_maps_come_back(shape: tuple[int, int]) -> None:
    rows, columns = np.indices(shape)
    for map_HW in (0 * rows, 0 * rows + 4, (rows + columns) % 2, rows % 2, columns % 5):
        same_after(map_HW, 5)


def test_a_map_of_65536_ids_comes_back_and_costs_little_more_than_their_order() -> None:
    ids = np.random.default_rng(0).permutation(65536).reshape(256, 256).astype(np.uint16)
    data = same_after(ids, 65536)
    assert len(data) < 1.1 * 65536 * 16 / 8  # log2(65536!) is 15 bits an id and a half


def test_a_map_of_one_id_costs_bytes() -> None:
    assert encode(np.zeros((500, 500), int), 1) == b""
    assert len(same_after(np.full((500, 500), 7), 12)) <= 2
    assert len(same_after(np.full((500, 500), 26_001), 65536)) <= 8


def test_noise_costs_no_more_than_its_entropy_and_a_few_percent() -> None:
    noise = np.random.default_rng(0).integers(0, 12, (200, 200))
    assert len(same_after(noise, 12)) < 1.06 * 200 * 200 * np.log2(12) / 8


def test_scenes_take_at_most_six_tenths_of_png_and_of_lossless_webp() -> None:
    # What JPEG XL takes is in benchmarks/README.md: no package of the environment writes it.
    ours, png, webp = 0, 0, 0
    for labels in scenes():
        ours += len(same_after(labels, 151))
        png += len(optimised_png(labels))
        stream = io.BytesIO()
        image = Image.fromarray(labels).convert("RGB")
        image.save(stream, "WEBP", lossless=True, quality=100, method=6)
        webp += len(stream.getvalue())
    assert ours <= 0.6 * min(png, webp)


def optimised_png(labels: np.ndarray) -> bytes:
    ids, places = np.unique(labels, return_inverse=True)
    image = Image.fromarray(places.reshape(labels.shape).astype(np.uint8), mode="P")
    image.putpalette([int(value) for value in ids for _ in range(3)])
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def test_instances_given_their_labels_cost_a_fraction() -> None:
    labels, instances = street(0)
    alone, given = same_after(instances, 65536), same_after(instances, 65536, given=labels)
    assert len(given) < len(alone) / 4


def test_a_mask_is_a_map_of_two_classes() -> None:
    rows, columns = np.indices((256, 256))
    mask = ((rows - 100) ** 2 + (columns - 140) ** 2 < 60**2).astype(np.uint8)
    assert len(same_after(mask, 2)) < len(optimised_png(mask)) / 2


def test_pixels_that_are_not_known_cost_nothing_and_come_back_as_zero() -> None:
    labels = street(1)[0]
    known = np.zeros(labels.shape, bool)
    known[60:160, 100:260] = True
    data = same_after(labels, 19, known)
    assert len(data) < 1.3 * len(same_after(labels[60:160, 100:260], 19)) + 8
    other = np.where(known, labels, np.random.default_rng(0).integers(0, 200, labels.shape))
    assert encode(other, 19, known) == data  # not even ids outside the classes matter there
    assert encode(labels, 19, np.zeros(labels.shape, bool)) == b""
    with pytest.raises(InputError, match="damaged"):
        decode(b"x", *labels.shape, 19, np.zeros(labels.shape, bool))


def test_damaged_data_is_refused_or_decodes_to_ids_of_the_map_within_bounded_time() -> None:
    labels = street(2, 64, 96)[0]
    data = encode(labels, 19)
    refused, streams = 0, []
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 + place % 255
        streams.append(bytes(flipped))
    generator = np.random.default_rng(0)
    streams += [data[: len(data) // 2], data + b"\0", data + b"x", b"", b"\xff" * 400]
    streams += [generator.bytes(int(generator.integers(1, 300))) for _ in range(50)]
    began = time.process_time()
    for stream in streams:
        try:
            found = decode(stream, 64, 96, 19)
        except InputError as error:
            assert "damaged" in str(error)
            refused += 1
        else:
            assert found.shape == (64, 96)
            assert 0 <= found.min() <= found.max() < 19
    assert refused > 0.9 * len(streams)
    assert (time.process_time() - began) / len(streams) < 2


@pytest.mark.parametrize(
    ("map_HW", "classes", "words"),
    [
        (np.zeros((2, 2)), 2, "array of integers"),
        (np.zeros(4, int), 2, "array of integers"),
        (np.zeros((0, 3), int), 2, "array of integers"),
        (np.full((2, 2), 2), 2, "from 2 to 2, allowed are 0 to 1"),
        (np.full((2, 2), -1), 2, "from -1 to -1"),
        (np.zeros((2, 2), int), 0, "1 to 65536 classes"),
        (np.zeros((2, 2), int), 65537, "1 to 65536 classes"),
    ],
)
def test_wrong_maps_are_refused(map_HW: np.ndarray, classes: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        encode(map_HW, classes)


def test_other_maps_must_have_the_shape_of_the_map() -> None:
    map_HW = np.zeros((3, 4), int)
    with pytest.raises(InputError, match="known pixels"):
        encode(map_HW, 2, np.ones((4, 3), bool))
    with pytest.raises(InputError, match="given map"):
        encode(map_HW, 2, None, np.zeros((4, 3), int))
    with pytest.raises(InputError, match="at least one pixel"):
        decode(b"", 0, 4, 2)


def test_the_stream_of_a_map_never_changes() -> None:
    """Streams are read by later versions: this one was written by the first."""
    rows, columns = np.indices((20, 30))
    map_HW = (rows // 7 + (columns + rows // 3) // 9) % 4
    assert encode(map_HW, 5).hex() == GOLDEN


def test_log_odds_are_those_of_the_exponential_function() -> None:
    to_log_odds, from_log_odds = adaptive_bits._log_odds()
    steps = np.arange(-704, 705) / 64
    assert abs(from_log_odds - 65536 / (1 + np.exp(-steps))).max() <= 1
    chances = np.arange(200, 65336)
    expected = 64 * np.log(chances / (65536 - chances))
    assert abs(to_log_odds[200:65336] - expected).max() <= 1.01
