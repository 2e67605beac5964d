"""The simulator: closed forms, plain replays of small cases, and what real readers do."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shards.building.build import build
from shards.checking.simulate import (
    Layout,
    Readers,
    even_layout,
    expected_distinct,
    layout_of,
    node_traffic,
    shuffle_quality,
    simulate,
)
from shards.errors import ShardError
from shards.reading.order import EpochOrder, Order
from shards.reading.reader import ShardSet
from shards.reading.stream import training_batches
from shards.reading.windowed import WindowedOrder

PLENTY = 1 << 60


def storage_order(layout: Layout) -> Order:
    """Shard by shard, sample by sample."""
    return WindowedOrder("k", 0, layout.lengths, window=1, lanes=1)


def orders(layout: Layout) -> list[Order]:
    n = int(layout.lengths.sum())
    return [
        EpochOrder("k", 0, n),
        WindowedOrder("k", 0, layout.lengths, window=7, lanes=3),
        storage_order(layout),
    ]


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    kind=st.integers(0, 2),
    world=st.integers(1, 5),
    nodes=st.integers(1, 3),
    batch=st.integers(1, 12),
    room=st.integers(0, 60),
    positions=st.integers(1, 150),
)
def test_traffic_equals_a_replay(
    lengths: list[int], kind: int, world: int, nodes: int, batch: int, room: int, positions: int
) -> None:
    """Sample by sample: who reads it, is its shard in a list of the most recently used?"""
    nodes = min(nodes, world)
    layout = Layout(np.array(lengths), np.array(lengths) * 10 + np.arange(len(lengths)))
    sizes = layout.sizes.tolist()
    order, limit = orders(layout)[kind], max(sizes) + 10 * room
    shard_of_row = np.repeat(np.arange(len(lengths)), lengths)
    for node, found in enumerate(
        node_traffic(layout, order, Readers(world, nodes, batch, limit), positions)
    ):
        cache: list[int] = []
        seen: set[int] = set()
        fetched: list[int] = []
        repeated = 0
        shares, needed = [], 0
        for begin in range(0, positions, order.length):
            epoch = range(begin, min(begin + order.length, positions))
            used = [
                int(shard_of_row[row])
                for p, row in zip(epoch, order.rows(np.array(epoch)).tolist(), strict=True)
                if p % batch % world * nodes // world == node
            ]
            for shard in used:
                if shard in cache:
                    cache.remove(shard)
                else:
                    fetched.append(shard)
                    repeated += shard in seen
                seen.add(shard)
                cache.append(shard)
                while sum(sizes[s] for s in cache) > limit:
                    cache.pop(0)
            for i in range(len(used)):
                alive = set(used[: i + 1]) & set(used[i:])
                needed = max(needed, sum(sizes[s] for s in alive))
            shares.append(sum(sizes[s] for s in set(used)) / sum(sizes))
        assert (found.requests, found.repeated, found.needed_bytes) == (
            len(fetched),
            repeated,
            needed,
        )
        assert found.bytes == sum(sizes[s] for s in fetched)
        assert found.share == pytest.approx(np.mean(shares))


def test_a_large_cache_fetches_every_shard_once() -> None:
    layout = even_layout(1000, 40, 7)
    for order in orders(layout):
        (node,) = simulate(layout, order, Readers(4, 1, 20, PLENTY), 3000).nodes
        assert (node.requests, node.bytes, node.repeated, node.share) == (25, 7000, 0, 1)


def test_storage_order_needs_one_shard_at_a_time() -> None:
    layout = even_layout(1000, 40, 7)
    (node,) = node_traffic(layout, storage_order(layout), Readers(4, 1, 20, 280), 1000)
    assert (node.requests, node.needed_bytes) == (25, 280)


def test_a_cache_of_what_is_needed_does_in_a_windowed_order() -> None:
    layout = even_layout(6400, 16, 100)
    order = WindowedOrder("k", 0, layout.lengths, window=64, lanes=4)
    for node in node_traffic(layout, order, Readers(4, 2, 32, PLENTY), 6400):
        assert node.share <= 0.5 + 2 / 400
        assert node.needed_bytes <= 2 * 5 * 1600  # two lanes, a window over five shards each
    global_order = EpochOrder("k", 0, 6400)
    for node in node_traffic(layout, global_order, Readers(4, 2, 32, PLENTY), 6400):
        assert node.share > 0.99 and node.needed_bytes > 0.95 * 640_000


@pytest.mark.parametrize("lengths", [[3], [1, 1, 1, 1], [2, 3, 1], [4, 1, 1]])
def test_expected_distinct_counts_every_subset(lengths: list[int]) -> None:
    shard = np.repeat(np.arange(len(lengths)), lengths).tolist()
    for batch in range(1, len(shard) + 1):
        counts = [len(set(c)) for c in itertools.combinations(shard, batch)]
        assert expected_distinct(np.array(lengths), batch) == pytest.approx(np.mean(counts))


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    kind=st.integers(0, 2),
    batch=st.integers(1, 12),
)
def test_quality_equals_a_count(lengths: list[int], kind: int, batch: int) -> None:
    layout = Layout(np.array(lengths), np.array(lengths))
    order, n = orders(layout)[kind], sum(lengths)
    found = shuffle_quality(layout, order, batch)
    rows = order.rows(np.arange(2 * n)).tolist()
    shard_of_row = np.repeat(np.arange(len(lengths)), lengths).tolist()
    b = min(batch, n)
    distinct = [len({shard_of_row[r] for r in rows[i : i + b]}) for i in range(0, n // b * b, b)]
    expected = expected_distinct(layout.lengths, b)
    assert found.distinct_shards == pytest.approx(np.mean(distinct) / expected)
    places = [
        {r: (e * n + i) // batch for i, r in enumerate(rows[e * n : e * n + n])} for e in (0, 1)
    ]
    pairs = list(itertools.combinations(range(n), 2))
    first, second = ([p[a] == p[c] for a, c in pairs] for p in places)
    both = sum(x and y for x, y in zip(first, second, strict=True))
    chance = sum(first) * sum(second) / max(1, len(pairs))
    assert found.pair_repeat == pytest.approx(both / chance if chance else 1)
    if n > 2:
        assert found.rank_correlation == pytest.approx(np.corrcoef(range(n), rows[:n])[0, 1])


def test_the_global_order_is_a_uniform_shuffle() -> None:
    """Poisson pairs, correlation 1/sqrt(n) and distinct shards agree within 4.5 standard errors."""
    n, batch = 200_000, 100
    layout = even_layout(n, 500, 1)
    found = shuffle_quality(layout, EpochOrder("k", 0, n), batch)
    assert abs(found.rank_correlation) < 4.5 / math.sqrt(n)
    assert abs(found.pair_repeat - 1) < 4.5 / math.sqrt(n * (batch - 1) / 2 * (batch - 1) / n)
    assert abs(found.distinct_shards - 1) < 0.005


def test_a_small_window_shows() -> None:
    layout = even_layout(100_000, 500, 1)
    small, large = (
        shuffle_quality(layout, WindowedOrder("k", 0, layout.lengths, window, 4), 100)
        for window in (500, 20_000)
    )
    assert small.distinct_shards < 0.1 < 0.8 < large.distinct_shards < 1
    assert small.pair_repeat > 10 > 1.5 > large.pair_repeat
    stored = shuffle_quality(layout, storage_order(layout), 100)
    # Batches of 100 are fifths of shards of 500, in both epochs the same ones.
    assert stored.pair_repeat == pytest.approx(99_999 / 99)


@pytest.fixture(scope="module")
def shard_set(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """90 images of 4 x 4 in shards of 4."""
    root = tmp_path_factory.mktemp("simulate")
    (root / "images").mkdir()
    for i in range(90):
        pixels = np.full((4, 4, 3), i, dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{i:02d}.png")
    return build(
        "folder",
        root / "set",
        path=root / "images",
        options={"test_fraction": 0.0},
        shard_size=4,
        processes=1,
    )


@pytest.mark.parametrize("batch", [6, 8])
@pytest.mark.parametrize("windowed", [False, True])
def test_real_readers_touch_the_shards_that_are_predicted(
    shard_set: ShardSet, windowed: bool, batch: int
) -> None:
    """Two epochs and a bit of real batches, of four ranks on two nodes."""
    split, layout = shard_set.split("train"), layout_of(shard_set.info.splits["train"])
    assert layout.lengths.tolist() == split.shard_lengths.tolist()
    order: Order = EpochOrder(split.key_hash, 0, len(split))
    if windowed:
        order = WindowedOrder(split.key_hash, 0, split.shard_lengths, window=8, lanes=4)
    world, nodes, batches = 4, 2, 192 // batch
    touched: list[set[str]] = [set() for _ in range(nodes)]
    for rank in range(world):
        stream = training_batches(split, order, batch, rank, world, 0)
        for share in itertools.islice(stream, batches):
            touched[rank * nodes // world] |= {split.place(row)[0] for row in share.rows.tolist()}
        stream.close()
    found = node_traffic(layout, order, Readers(world, nodes, batch, PLENTY), batches * batch)
    assert [node.requests for node in found] == [len(shards) for shards in touched]


def test_made_up_layouts() -> None:
    layout = even_layout(10, 4, 100)
    assert layout.lengths.tolist() == [4, 4, 2] and layout.sizes.tolist() == [400, 400, 200]
    with pytest.raises(ShardError, match="not 0 of 100 bytes and 4 a shard"):
        even_layout(0, 4, 100)


def test_bad_input() -> None:
    layout = even_layout(100, 10, 10)
    order = EpochOrder("k", 0, 100)
    with pytest.raises(ShardError, match="order is for 99 rows but the shards have 100"):
        simulate(layout, EpochOrder("k", 0, 99), Readers(1, 1, 4, 1000), 10)
    with pytest.raises(ShardError, match="2 ranks on 3 nodes"):
        simulate(layout, order, Readers(2, 3, 4, 1000), 10)
    with pytest.raises(ShardError, match="99 bytes cannot hold the largest shard, which has 100"):
        simulate(layout, order, Readers(2, 1, 4, 99), 10)


@pytest.mark.slow
@pytest.mark.parametrize("windowed", [False, True])
def test_three_million_samples_take_seconds(windowed: bool) -> None:
    layout = even_layout(3_000_000, 1000, 10_000)
    order: Order = EpochOrder("k", 0, 3_000_000)
    if windowed:
        order = WindowedOrder("k", 0, layout.lengths, window=16_384, lanes=8)
    begin = time.process_time()
    simulate(layout, order, Readers(8, 2, 256, 10**10), 3_000_000)
    assert time.process_time() - begin < 30
