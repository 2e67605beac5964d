"""Batches: equal global batches for any number of ranks, exact resume, errors that arrive."""

from __future__ import annotations

import threading
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shards import open_set
from shards.build import build
from shards.errors import ShardError
from shards.order import EpochOrder
from shards.reader import Split
from shards.stream import Batch, evaluation_batches, training_batches


@pytest.fixture(scope="module")
def split(built: Path) -> Split:
    return open_set(built).split("train")


def take(
    split: Split,
    n: int,
    batch: int,
    rank: int = 0,
    world: int = 1,
    start: int = 0,
    threads: int = 1,
) -> list[Batch]:
    stream = training_batches(
        split, EpochOrder(split.key_hash, 0, len(split)), batch, rank, world, start, threads
    )
    try:
        return list(islice(stream, n))
    finally:
        stream.close()


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("batch", [12, 13])
def test_union_over_ranks_is_the_global_batch(split: Split, world: int, batch: int) -> None:
    """Twelve batches of about 67 rows: two epochs and a bit, so batches straddle epochs."""
    order = EpochOrder(split.key_hash, 0, len(split))
    ranks = [take(split, 12, batch, r, world) for r in range(world)]
    for k in range(12):
        expected = np.arange(k * batch, (k + 1) * batch)
        whole = np.concatenate([ranks[r][k].positions for r in range(world)])
        assert np.array_equal(np.sort(whole), expected)
        for r in range(world):
            part = ranks[r][k]
            assert np.array_equal(part.positions, expected[r::world])
            assert np.array_equal(part.rows, order.rows(part.positions))
            for image, row in zip(part.images, part.rows, strict=True):
                assert np.array_equal(image, split.read(int(row)).image)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.integers(0, 400),
    batch=st.integers(1, 17),
    world=st.integers(1, 3),
    threads=st.integers(1, 3),
)
def test_resume_at_any_batch_equals_the_uninterrupted_stream(
    split: Split, start: int, batch: int, world: int, threads: int
) -> None:
    first = start // batch
    for rank in range(world):
        whole = take(split, first + 2, batch, rank, world)[first:]
        resumed = take(split, 2, batch, rank, world, first * batch, threads)
        for a, b in zip(whole, resumed, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


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


def test_labels(tmp_path: Path, images: Path) -> None:
    labelled = build("folder", tmp_path / "l", path=images, size=8, test_fraction=0).split("train")
    batch = next(evaluation_batches(labelled, 64, 0, 1))
    assert sorted(batch.labels.tolist()) == [-1] + [0] * 6 + [1] * 6


def test_closing_stops_the_threads(split: Split) -> None:
    order = EpochOrder(split.key_hash, 0, len(split))
    stream = training_batches(split, order, 4, 0, 1, 0, threads=3, ahead=4)
    next(stream)
    assert any(t.name.startswith("shards-reader") for t in threading.enumerate())
    stream.close()
    assert not any(t.name.startswith("shards-reader") for t in threading.enumerate())


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


def test_images_of_different_sizes(tmp_path: Path, images: Path) -> None:
    mixed = build("folder", tmp_path / "m", path=images, test_fraction=0).split("train")
    with pytest.raises(ShardError, match=r"'cats/a01' is 29x21 and 'cats/a03' is 27x23 .*--size"):
        next(evaluation_batches(mixed, 4, 0, 1))


def test_bad_arguments(split: Split) -> None:
    order = EpochOrder(split.key_hash, 0, len(split))
    with pytest.raises(ShardError, match="rank 2 is not in"):
        evaluation_batches(split, 4, 2, 2)
    with pytest.raises(ShardError, match="at least one sample"):
        training_batches(split, order, 0, 0, 1, 0)
    with pytest.raises(ShardError, match="order is for 5 rows"):
        training_batches(split, EpochOrder("k", 0, 5), 4, 0, 1, 0)
