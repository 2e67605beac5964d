"""Mixtures: exact proportions, and each part's stream exactly as its own order has it."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shards import open_set
from shards.building.build import build
from shards.errors import ShardError
from shards.reading.mixture import MixedSplit, MixtureOrder, Part, mix
from shards.reading.order import EpochOrder, Order
from shards.reading.reader import ShardSet, Split
from shards.reading.stream import evaluation_batches, training_batches
from shards.reading.windowed import WindowedOrder

BLOCK = 4096
GOLDEN = [2, 4, 0, 1, 7, 3, 3, 9, 6, 8, 2, 0, 1, 3, 2, 1]


def order_of(*parts: tuple[int, int], seed: int = 0, key_hash: str = "m") -> MixtureOrder:
    """A mixture of orders of these (length, weight), of both kinds in turn."""
    orders: list[Order] = [
        EpochOrder(f"part{i}", seed, length)
        if i % 2 == 0
        else WindowedOrder(f"part{i}", seed, np.array([length // 2, length - length // 2]), 3, 2)
        for i, (length, _) in enumerate(parts)
    ]
    return MixtureOrder(key_hash, tuple(orders), tuple(weight for _, weight in parts))


def test_golden_values() -> None:
    """These must never change: a resumed run depends on them."""
    assert order_of((4, 2), (6, 1)).rows(np.arange(16) + 3 * BLOCK).tolist() == GOLDEN


mixtures = st.lists(st.tuples(st.integers(50, 900), st.integers(1, 9)), min_size=1, max_size=4)


@settings(max_examples=15)
@given(mixture=mixtures, seed=st.integers(0, 2**63), block=st.integers(0, 2**49))
def test_each_part_reads_its_own_stream_without_a_gap(
    mixture: list[tuple[int, int]], seed: int, block: int
) -> None:
    """The rows of a part, in the order of the mixture's stream, are its order's own stream."""
    order = order_of(*mixture, seed=seed)
    positions = np.arange(2 * BLOCK) + block * BLOCK
    parts, own = order.parts(positions)
    rows = order.rows(positions)
    begin = 0
    for i, single in enumerate(order.orders):
        here = parts == i
        first = int(own[here][0])
        stream = np.arange(first, first + here.sum())
        assert np.array_equal(own[here], stream)
        assert np.array_equal(rows[here] - begin, single.rows(stream))
        begin += single.length


@settings(max_examples=60)
@given(weights=st.lists(st.integers(1, 50), min_size=1, max_size=6), block=st.integers(0, 2**40))
def test_proportions_are_exact_within_a_sample(weights: list[int], block: int) -> None:
    """This holds after any number of blocks, so that of each block within two samples."""
    order = order_of(*((10, weight) for weight in weights))
    parts, own = order.parts(np.arange(BLOCK) + block * BLOCK)
    for i, weight in enumerate(weights):
        given_so_far = int(own[parts == i].max()) + 1
        assert abs(given_so_far * sum(weights) - (block + 1) * BLOCK * weight) < sum(weights)
        assert abs((parts == i).sum() - BLOCK * weight / sum(weights)) < 2


def test_a_part_keeps_to_its_epochs() -> None:
    """Each epoch of the share of 20 rows with weight 3 of 4 is a permutation."""
    order = order_of((20, 3), (7, 1))
    rows = order.rows(np.arange(4 * BLOCK))
    small, large = rows[rows >= 20] - 20, rows[rows < 20]
    assert len(small) == BLOCK and len(large) == 3 * BLOCK
    for own, n in ((large, 20), (small, 7)):
        epochs = own[: len(own) // n * n].reshape(-1, n)
        assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(n), (len(epochs), 1)))


@settings(max_examples=30)
@given(
    mixture=mixtures,
    positions=st.lists(st.integers(0, 2**61), min_size=1, max_size=10),
)
def test_random_access_equals_one_by_one(
    mixture: list[tuple[int, int]], positions: list[int]
) -> None:
    order = order_of(*mixture)
    one_by_one = [int(order.rows(np.array([p]))[0]) for p in positions]
    assert order.rows(np.array(positions)).tolist() == one_by_one
    assert order.rows(np.array(positions)[:, None]).shape == (len(positions), 1)


def test_parts_are_scattered_evenly() -> None:
    """Runs of one part are as long as coin tosses make them: |z| < 4.5 (error rate 7e-6)."""
    order = order_of((1000, 1), (1000, 1))
    parts, _ = order.parts(np.arange(64 * BLOCK))
    changes = np.count_nonzero(np.diff(parts))
    assert abs(changes - len(parts) / 2) < 4.5 * np.sqrt(len(parts) / 4)
    places = parts.reshape(64, BLOCK).sum(axis=0)  # over the blocks, binomial(64, 1/2) each
    assert abs(places.var() - 16) < 4.5 * 16 * np.sqrt(2 / BLOCK)


def test_seed_and_data_change_the_order() -> None:
    p = np.arange(1000)
    base = order_of((30, 1), (30, 1)).parts(p)[0]
    for other in (
        order_of((30, 1), (30, 1), seed=1).parts(p)[0],
        order_of((30, 1), (30, 1), key_hash="n").parts(p)[0],
        order_of((30, 1), (30, 1)).parts(p + BLOCK)[0],
    ):
        assert abs((base == other).mean() - 0.5) < 4.5 / np.sqrt(4 * 1000)


def images(root: Path, count: int, side: int, labelled: bool) -> ShardSet:
    """Grey images, all different, in two folders with labels or in none."""
    for i in range(count):
        folder = root / "images" / ("ab"[i % 2] if labelled else "")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.full((side, side, 3), 7 * i, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return build(
        "folder",
        root / "set",
        path=root / "images",
        options={"test_fraction": 0.0 if labelled else 0.2},
        shard_size=5,
        processes=1,
    )


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    """12 images with labels and 24 without, of 8 x 8."""
    root = tmp_path_factory.mktemp("mixture")
    sets = images(root / "a", 12, 8, True), images(root / "b", 30, 8, False)
    return sets[0].split("train"), sets[1].split("train")


def mixed(splits: tuple[Split, Split], weights: tuple[int, int] = (3, 1), seed: int = 0) -> tuple:
    return mix(
        [
            Part(split, EpochOrder(split.key_hash, seed, len(split)), weight)
            for split, weight in zip(splits, weights, strict=True)
        ]
    )


def test_a_mixed_split_reads_as_its_parts_do(splits: tuple[Split, Split]) -> None:
    split, order = mixed(splits)
    a, b = splits
    assert len(split) == len(a) + len(b) == order.length
    for row in (0, len(a) - 1, len(a), len(split) - 1):
        part, own = (a, row) if row < len(a) else (b, row - len(a))
        sample, single = split.read(row), part.read(own)
        assert sample.row == row and sample.key == single.key == split.key(row)
        assert sample.label == single.label == split.label(row)
        assert np.array_equal(sample.image, single.image)
        assert np.array_equal(split.image(row), single.image)
        assert split.place(row) == part.place(own)
        assert split.maps(row, []) == {}
    rows = np.array([len(split) - 1, 3, 0, len(a)])
    assert split.labels(rows).tolist() == [-1, *a.labels(np.array([3, 0])).tolist(), -1]
    assert [s.row for s in split.read_many(rows)] == rows.tolist()
    assert split.shard_lengths.tolist() == [*a.shard_lengths, *b.shard_lengths]
    assert len(split.shard_names) == len(set(split.shard_names)) == len(split.shard_lengths)
    assert np.array_equal(pickle.loads(pickle.dumps(split)).image(1), split.image(1))
    with pytest.raises(ShardError, match=f"rows 0 to {len(split) - 1}, not {len(split)}"):
        split.read(len(split))
    with pytest.raises(ShardError, match="not -1"):
        split.image(-1)


def test_the_identity_covers_splits_and_weights(splits: tuple[Split, Split]) -> None:
    a, b = splits
    other = open_set(b.path).split("test")
    keys = [
        mixed(splits, (3, 1))[0].key_hash,
        mixed(splits, (1, 3))[0].key_hash,
        mixed((b, a), (3, 1))[0].key_hash,
        mixed((a, other), (3, 1))[0].key_hash,
    ]
    assert len(set(keys)) == 4 and mixed(splits, (3, 1))[0].key_hash == keys[0]


@pytest.mark.parametrize("world", [1, 3])
def test_batches_of_a_mixture(splits: tuple[Split, Split], world: int) -> None:
    split, order = mixed(splits)
    streams = [training_batches(split, order, 16, rank, world, 32) for rank in range(world)]
    for k in range(3):
        batches = [next(stream) for stream in streams]
        positions = np.concatenate([b.positions for b in batches])
        rows = np.concatenate([b.rows for b in batches])
        assert sorted(positions.tolist()) == list(range(32 + 16 * k, 48 + 16 * k))
        assert np.array_equal(rows, order.rows(positions))
        for batch in batches:
            assert np.array_equal(batch.labels, split.labels(batch.rows))
            for image, row in zip(batch.images, batch.rows.tolist(), strict=True):
                assert np.array_equal(image, split.image(row))
    for stream in streams:
        stream.close()
    assert sum(len(b.rows) for b in evaluation_batches(split, 16, 0, 1)) == len(split)


def test_images_of_different_sizes_are_named(tmp_path: Path, splits: tuple[Split, Split]) -> None:
    larger = images(tmp_path, 10, 12, True).split("train")
    split, order = mixed((splits[0], larger), (1, 1))
    with pytest.raises(ShardError, match="different sizes cannot share a batch"):
        next(training_batches(split, order, 32, 0, 1, 0))


def test_bad_mixtures(splits: tuple[Split, Split]) -> None:
    a, b = splits
    orders = [EpochOrder(split.key_hash, 0, len(split)) for split in splits]
    with pytest.raises(ShardError, match="at least one part"):
        mix([])
    with pytest.raises(ShardError, match="order is for 12 rows but split 'train'"):
        mix([Part(b, orders[0], 1)])
    with pytest.raises(ShardError, match=r"share one seed, not \[0, 1\]"):
        mix([Part(a, orders[0], 1), Part(b, EpochOrder("k", 1, len(b)), 1)])
    for weights in [(0, 1), (-1, 2), (1, 4096)]:
        with pytest.raises(ShardError, match=r"weights .* must be whole numbers"):
            mixed(splits, weights)
    assert isinstance(mixed(splits, (1, 4095))[0], MixedSplit)


def test_a_weight_at_the_limit_gets_one_sample_a_block() -> None:
    parts, _ = order_of((5, 1), (5, 1), (5, 4094)).parts(np.arange(10 * BLOCK))
    for block in parts.reshape(10, BLOCK):
        assert np.bincount(block).tolist() == [1, 1, 4094]
