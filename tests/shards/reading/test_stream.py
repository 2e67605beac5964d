"""Batches: equal global batches for any number of ranks, exact resume, errors that arrive."""

from __future__ import annotations

import io
import pickle
import tarfile
import threading
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shards import open_set
from shards.building.build import build
from shards.building.foreign import index_tars
from shards.errors import ShardError
from shards.reading.mixture import MixedSplit, Part, mix
from shards.reading.order import EpochOrder, Order
from shards.reading.reader import ShardSet, Split
from shards.reading.stream import Batch, chosen_batches, evaluation_batches, training_batches
from shards.reading.transforms import Transforms, dithered, draws
from shards.reading.windowed import WindowedOrder
from tests.waiting import PATIENCE

ORDERS = ["global", "windowed", "mixture"]
EVERYTHING = Transforms(resize=(24, 20), crop=(16, 12), flip=True, dither=True)


@pytest.fixture(scope="module")
def split(built: Path) -> Split:
    return open_set(built).split("train")


def ordered(split: Split, kind: str, seed: int = 0) -> tuple[Split | MixedSplit, Order]:
    """The split (in a mixture: with itself) and an order of that kind."""
    whole = EpochOrder(split.key_hash, seed, len(split))
    windowed = WindowedOrder(split.key_hash, seed, split.shard_lengths, window=9, lanes=4)
    if kind == "mixture":
        return mix([Part(split, whole, 2), Part(split, windowed, 1)])
    return split, whole if kind == "global" else windowed


def take(
    split: Split, n: int, batch: int, rank: int = 0, world: int = 1, start: int = 0, **more: Any
) -> list[Batch]:
    """The first n batches of a rank; `kind` is of the order, the rest is of `training_batches`."""
    source, order = ordered(split, more.pop("kind", "global"))
    stream = training_batches(source, order, batch, rank, world, start, **more)
    try:
        return list(islice(stream, n))
    finally:
        stream.close()


def assert_equal(a: Batch, b: Batch, where: slice = slice(None)) -> None:
    """Batch a is batch b, or the part of it that `where` says."""
    assert a.maps.keys() == b.maps.keys()
    for x, y in zip([*a[:4], *a.maps.values()], [*b[:4], *b.maps.values()], strict=True):
        assert x.dtype == y.dtype and np.array_equal(x, y[where])


@pytest.mark.parametrize("kind", ORDERS)
@settings(max_examples=8)
@given(
    batch=st.integers(1, 17),
    world=st.integers(1, 8),
    threads=st.integers(1, 4),
    ahead=st.integers(1, 3),
    start=st.integers(0, 400),
    transforms=st.sampled_from([None, EVERYTHING]),
)
def test_ranks_share_the_batches_of_a_single_one(
    split: Split,
    kind: str,
    batch: int,
    world: int,
    threads: int,
    ahead: int,
    start: int,
    transforms: Transforms | None,
) -> None:
    """Whatever the ranks and threads, also when the batch does not divide and some get nothing."""
    whole = take(split, 3, batch, start=start, kind=kind, transforms=transforms)
    source, order = ordered(split, kind)
    for k, expected in enumerate(whole):
        assert np.array_equal(expected.positions, start + k * batch + np.arange(batch))
        assert np.array_equal(expected.rows, order.rows(expected.positions))
        if transforms is None:
            for image, row in zip(expected.images, expected.rows.tolist(), strict=True):
                assert np.array_equal(image, source.read(row).image)
    for rank in range(world):
        own = take(
            split,
            3,
            batch,
            rank,
            world,
            start,
            kind=kind,
            transforms=transforms,
            threads=threads,
            ahead=ahead,
        )
        for a, b in zip(own, whole, strict=True):
            assert_equal(a, b, slice(rank, None, world))


@pytest.mark.parametrize("kind", ORDERS)
@settings(max_examples=5)
@given(start=st.integers(0, 400), batch=st.integers(1, 17), world=st.integers(1, 3))
def test_resume_at_any_batch_equals_the_uninterrupted_stream(
    split: Split, kind: str, start: int, batch: int, world: int
) -> None:
    first = start // batch
    more = {"kind": kind, "transforms": Transforms(crop=(20, 20), flip=True)}
    for rank in range(world):
        whole = take(split, first + 2, batch, rank, world, **more)[first:]
        resumed = take(split, 2, batch, rank, world, first * batch, **more)
        for a, b in zip(whole, resumed, strict=True):
            assert_equal(a, b)


@pytest.mark.parametrize("kind", ORDERS)
def test_seeds_and_epochs_differ(split: Split, kind: str) -> None:
    n = 3 * len(split)
    stream = np.arange(2 * n)
    rows = ordered(split, kind)[1].rows(stream)
    other = ordered(split, kind, seed=1)[1].rows(stream)
    assert (rows == other).mean() < 0.2 and (rows[:n] == rows[n:]).mean() < 0.2


def test_resume_with_another_batch_size_goes_on_where_the_stream_was(split: Split) -> None:
    positions = np.concatenate([b.positions for b in take(split, 3, 5, start=7)])
    assert np.array_equal(positions, np.arange(7, 22))


def test_no_sample_is_lost_or_repeated_in_an_epoch(split: Split) -> None:
    n, batch = len(split), 16
    batches = take(split, -(-3 * n // batch), batch)
    rows = np.concatenate([b.rows for b in batches])[: 3 * n].reshape(3, n)
    assert np.array_equal(np.sort(rows, axis=1), np.tile(np.arange(n), (3, 1)))
    assert all(len(b.images) == batch for b in batches)


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_evaluation_visits_each_row_once(split: Split, world: int) -> None:
    ranks = [list(evaluation_batches(split, 6, r, world)) for r in range(world)]
    assert len({len(r) for r in ranks}) == 1
    rows = np.concatenate([b.rows for r in ranks for b in r])
    assert np.array_equal(np.sort(rows), np.arange(len(split)))
    if world == 8:
        assert {b.images.shape for b in ranks[7]} == {(0, 32, 32, 3)}
    limited = [b.rows.tolist() for b in evaluation_batches(split, 6, 0, 1, limit=8)]
    assert limited == [[0, 1, 2, 3, 4, 5], [6, 7]]


def test_labels(images: Path, tmp_path: Path) -> None:
    options = {"size": "8", "test_fraction": 0.0}
    labelled = build("folder", tmp_path / "l", path=images, options=options).split("train")
    batch = next(evaluation_batches(labelled, 64, 0, 1))
    assert sorted(batch.labels.tolist()) == [-1] + [0] * 6 + [1] * 6


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def scenes(directory: Path, sizes: list[tuple[int, int]], map_size: int = 0) -> Split:
    """Images of these (height, width) with a map of 8 and one of 16 bits, indexed in place."""
    directory.mkdir()
    with tarfile.open(directory / "train-000000.tar", "w") as tar:
        for i, size in enumerate(sizes):
            rng = np.random.default_rng(i)
            members = {
                "png": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
                "label.png": rng.integers(0, 19, (map_size or size[0], size[1]), dtype=np.uint8),
                "instance.png": rng.integers(0, 40_000, size, dtype=np.uint16),
            }
            for ext, pixels in members.items():
                member = tarfile.TarInfo(f"{i:04d}.{ext}")
                data = png(pixels)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    index_tars(directory)
    return open_set(directory).split("train")


def test_maps_follow_their_images(tmp_path: Path) -> None:
    split = scenes(tmp_path / "scenes", [(20 + i, 30 - i) for i in range(8)])
    order, names = EpochOrder(split.key_hash, 3, len(split)), ("instance", "label")
    transforms = Transforms(resize=(12, 14), crop=(8, 10), flip=True)
    stream = training_batches(split, order, 6, 0, 1, 5, 2, transforms=transforms, maps=names)
    for batch in islice(stream, 4):
        assert batch.maps["label"].dtype == np.uint8 and batch.maps["instance"].dtype == np.uint16
        for i, draw in enumerate(draws(3, batch.positions)):
            sample = split.read(int(batch.rows[i]))
            view = transforms.view(sample.image.shape[:2], draw)
            assert np.array_equal(batch.images[i], view.image(sample.image))
            for name in names:
                assert np.array_equal(batch.maps[name][i], view.map(sample.maps[name]))
    stream.close()
    one = next(evaluation_batches(split, 1, 0, 1, maps=["label"]))
    assert list(one.maps) == ["label"]
    assert np.array_equal(one.maps["label"][0], split.read(0).maps["label"])


def test_a_map_of_another_size_than_its_image(tmp_path: Path) -> None:
    split = scenes(tmp_path / "scenes", [(20, 20)] * 2, map_size=19)
    with pytest.raises(ShardError, match=r"map 'label' of '0000' is 19x20 .* its image 20x20"):
        next(evaluation_batches(split, 2, 0, 1, maps=["label"]))


@pytest.mark.parametrize("transforms", [None, EVERYTHING])
def test_an_empty_share_has_the_shapes_and_types_of_the_others(
    tmp_path: Path, transforms: Transforms | None
) -> None:
    split = scenes(tmp_path / "scenes", [(20, 24)] * 3)
    order, maps = EpochOrder(split.key_hash, 0, 3), ["label", "instance"]
    batches = []
    for rank in (0, 2):
        stream = training_batches(split, order, 2, rank, 3, 0, transforms=transforms, maps=maps)
        batches.append(next(stream))
        stream.close()
    full, empty = batches
    for a, b in zip(
        [*full[:4], *full.maps.values()], [*empty[:4], *empty.maps.values()], strict=True
    ):
        assert len(b) == 0 and b.shape[1:] == a.shape[1:] and b.dtype == a.dtype
    assert full.images.dtype == (np.uint8 if transforms is None else np.float32)


def test_transforms_are_keyed_by_the_position(split: Split) -> None:
    (batch,) = take(split, 1, 16, start=40, transforms=EVERYTHING)
    for i, draw in enumerate(draws(0, batch.positions)):
        image = split.image(int(batch.rows[i]))
        expected = np.empty((16, 12, 3), dtype=np.float32)
        view = EVERYTHING.view(image.shape[:2], draw)
        dithered(view.image(image), 0, int(batch.positions[i]), expected)
        assert np.array_equal(batch.images[i], expected)


def test_evaluation_is_not_random(split: Split) -> None:
    for batch in evaluation_batches(split, 16, 0, 1, transforms=EVERYTHING):
        assert batch.images.dtype == np.uint8
        for image, row in zip(batch.images, batch.rows.tolist(), strict=True):
            pixels = split.image(row)
            view = Transforms(resize=(24, 20), crop=(16, 12)).view(pixels.shape[:2], None)
            assert np.array_equal(image, view.image(pixels))


class Recording(Split):
    """A split that remembers what was announced, and how much when each row was read."""

    def record(self) -> Recording:
        self.announced: list[int] = []
        self.known: list[tuple[int, int]] = []
        return self

    def fetch_soon(self, rows: np.ndarray) -> None:
        self.announced += rows.tolist()
        super().fetch_soon(rows)

    def image(self, row: int, out: np.ndarray | None = None) -> np.ndarray:
        self.known.append((row, len(self.announced)))
        return super().image(row, out)


@pytest.mark.parametrize("world", [1, 2])
def test_a_split_hears_of_its_rows_in_good_time(built: Path, world: int) -> None:
    """Each row in its turn, a look-ahead before it is read and not much more."""
    split = Recording(built, "train", open_set(built).info).record()
    window, lanes, batch = 16, 2, 4
    order = WindowedOrder(split.key_hash, 0, split.shard_lengths, window, lanes)
    stream = training_batches(split, order, batch, 0, world, 0)
    for _ in range(100):
        next(stream)
    stream.close()
    block = 32 * batch // world
    for i, (row, known) in enumerate(split.known):
        assert row == split.announced[i]
        assert i + order.look_ahead // world <= known <= i + order.look_ahead // world + 2 * block
    split.record()
    assert len(list(evaluation_batches(split, 4, 0, world))) == -(-len(split) // 4)
    assert [row for row, _ in split.known] == split.announced


def test_memory_is_used_again_but_never_while_anybody_holds_it(split: Split) -> None:
    order = EpochOrder(split.key_hash, 0, len(split))
    stream = training_batches(split, order, 8, 0, 1, 0, threads=2)
    parts = [next(stream).images[i : i + 2] for i in range(4)]  # no batch is kept as a whole
    copies = [part.copy() for part in parts]
    places = [next(stream).images.ctypes.data for _ in range(40)]
    assert all(np.array_equal(a, b) for a, b in zip(parts, copies, strict=True))
    assert len(set(places)) < 12
    stream.close()


def test_closing_stops_the_threads(split: Split) -> None:
    order = EpochOrder(split.key_hash, 0, len(split))
    stream = training_batches(split, order, 4, 0, 1, 0, threads=3, ahead=4)
    next(stream)
    assert any(t.name.startswith("shards-reader") for t in threading.enumerate())
    stream.close()
    assert not any(t.name.startswith("shards-reader") for t in threading.enumerate())


class Meeting(Split):
    """A split in which the first read of each thread waits until four threads read."""

    barrier = threading.Barrier(4)
    here = threading.local()

    def image(self, row: int, out: np.ndarray | None = None) -> np.ndarray:
        if not hasattr(self.here, "met"):
            self.barrier.wait(timeout=PATIENCE)
            self.here.met = True
        return super().image(row, out)


def test_all_the_threads_work_at_once(built: Path) -> None:
    """They do so when fewer batches than threads are to be read ahead."""
    split = Meeting(built, "train", open_set(built).info)
    order = EpochOrder(split.key_hash, 0, len(split))
    stream = training_batches(split, order, 4, 0, 1, 0, threads=4, ahead=1)
    assert next(stream).positions.tolist() == [0, 1, 2, 3]
    stream.close()


def test_an_error_in_a_reader_thread_arrives_in_its_turn(photo_set: Path) -> None:
    split = open_set(photo_set).split("train")
    order = EpochOrder(split.key_hash, 0, len(split))
    bad = int(order.rows(np.array([9]))[0])
    shard, key, offset = split.place(bad)
    data = bytearray((photo_set / shard).read_bytes())
    data[offset + 60] ^= 1
    (photo_set / shard).write_bytes(data)
    stream = training_batches(split, order, 4, 0, 1, 0, threads=2, ahead=4)
    assert [next(stream).positions[0] for _ in range(2)] == [0, 4]
    with pytest.raises(ShardError, match=f"{shard}, key '{key}', byte {offset}: .*changed"):
        next(stream)


def test_images_of_different_sizes(folder_set: ShardSet) -> None:
    mixed = folder_set.split("train")
    with pytest.raises(ShardError, match=r"'.*' is \d+x\d+ and '.*' is \d+x\d+ .*--size"):
        next(evaluation_batches(mixed, 4, 0, 1))
    for transforms in (Transforms(crop=(16, 16)), Transforms(resize=(9, 13))):
        batch = next(evaluation_batches(mixed, 4, 0, 1, transforms=transforms))
        assert batch.images.shape == (4, *(transforms.crop or transforms.resize or ()), 3)
    with pytest.raises(ShardError, match=r"different sizes"):
        next(evaluation_batches(mixed, 4, 0, 1, transforms=Transforms(flip=True)))


def test_the_index_knows_the_sizes(folder_set: ShardSet, split: Split) -> None:
    mixed = folder_set.split("train")
    rows = np.array([3, 0, 3])
    assert mixed.sizes(rows).tolist() == [list(mixed.image(int(row)).shape[:2]) for row in rows]
    again = pickle.loads(pickle.dumps(mixed))
    assert again.sizes(rows).tolist() == mixed.sizes(rows).tolist()
    assert split.sizes(np.arange(3)).tolist() == [[32, 32]] * 3  # all of one size


def test_an_empty_share_has_the_shape_of_its_batch(folder_set: ShardSet) -> None:
    """Where images have different sizes it is that of its batch, not that of the first image."""
    mixed = folder_set.split("train")
    batches = [np.array([row]) for row in range(3)]
    here, empty = (list(chosen_batches(mixed, batches, rank, 2)) for rank in range(2))
    assert len({batch.images.shape for batch in here}) == 3
    for one, none in zip(here, empty, strict=True):
        assert len(none.rows) == 0 and none.images.shape == (0, *one.images.shape[1:])


def test_an_image_smaller_than_the_crop_is_named(folder_set: ShardSet) -> None:
    split = folder_set.split("train")
    height, width = split.image(0).shape[:2]
    sentence = rf"the image '{split.key(0)}' is {height}x{width} .* too small for the crop 31x31"
    with pytest.raises(ShardError, match=sentence):
        next(evaluation_batches(split, 1, 0, 1, transforms=Transforms(crop=(31, 31))))


def test_bad_arguments(split: Split) -> None:
    order = EpochOrder(split.key_hash, 0, len(split))
    with pytest.raises(ShardError, match="rank 2 is not in"):
        evaluation_batches(split, 4, 2, 2)
    with pytest.raises(ShardError, match="at least one sample"):
        training_batches(split, order, 0, 0, 1, 0)
    with pytest.raises(ShardError, match="order is for 5 rows"):
        training_batches(split, EpochOrder("k", 0, 5), 4, 0, 1, 0)
    with pytest.raises(ShardError, match="no map 'label'"):
        next(evaluation_batches(split, 4, 0, 1, maps=["label"]))
