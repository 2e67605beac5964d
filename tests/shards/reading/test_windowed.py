"""The windowed order: what every order guarantees, and that few shards are needed at a time."""

from __future__ import annotations

import pickle
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shards.errors import ShardError
from shards.reading.order import permute
from shards.reading.windowed import WindowedOrder

GOLDEN = [9, 6, 13, 12, 4, 14, 11, 3, 15, 10, 5, 16, 0, 7, 18, 1, 8, 17, 2]
GOLDEN_3M = [43062, 2650286, 1813252, 72788, 722219, 821791, 2078358, 415471]

shard_lengths = st.lists(st.integers(0, 60), min_size=1, max_size=20).filter(any)


def order_of(
    lengths: list[int], window: int = 8, lanes: int = 2, seed: int = 0, key_hash: str = "k"
) -> WindowedOrder:
    return WindowedOrder(key_hash, seed, np.array(lengths), window, lanes)


def shards_of(order: WindowedOrder, rows: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(order.shard_lengths)), order.shard_lengths)[rows]


def test_golden_values() -> None:
    """These must never change: a resumed run depends on them."""
    assert order_of([3, 6, 4, 6], window=4, lanes=3).rows(np.arange(19)).tolist() == GOLDEN
    large = WindowedOrder("k", 7, np.full(3000, 1000), window=8192, lanes=16)
    assert large.rows(np.arange(8) + 7 * 3_000_000 + 12_345).tolist() == GOLDEN_3M


@settings(max_examples=100)
@given(
    lengths=shard_lengths,
    window=st.integers(1, 100),
    lanes=st.integers(1, 9),
    seed=st.integers(0, 2**63),
    epoch=st.integers(0, 10**6),
)
def test_every_epoch_is_a_permutation(
    lengths: list[int], window: int, lanes: int, seed: int, epoch: int
) -> None:
    order = order_of(lengths, window, lanes, seed)
    rows = order.rows(np.arange(order.length) + epoch * order.length)
    assert np.array_equal(np.sort(rows), np.arange(order.length))


@settings(max_examples=60)
@given(
    lengths=shard_lengths,
    window=st.integers(1, 100),
    lanes=st.integers(1, 9),
    positions=st.lists(st.integers(0, 2**62), min_size=1, max_size=20),
)
def test_random_access_equals_one_by_one(
    lengths: list[int], window: int, lanes: int, positions: list[int]
) -> None:
    """Any positions in any order, over many epochs at once, with fresh and with filled tables."""
    order = order_of(lengths, window, lanes)
    one_by_one = [int(order_of(lengths, window, lanes).rows(np.array([p]))[0]) for p in positions]
    assert order.rows(np.array(positions)).tolist() == one_by_one
    assert order.rows(np.array(positions)).tolist() == one_by_one


@settings(max_examples=60)
@given(lengths=shard_lengths, window=st.integers(1, 100), lanes=st.integers(1, 9))
def test_lanes_are_pieces_of_the_sequence_and_windows_stay_inside_them(
    lengths: list[int], window: int, lanes: int
) -> None:
    """What remains, once each window's rows are sorted, is whole shards in one sequence."""
    order = order_of(lengths, window, lanes)
    n = order.length
    rows = order.rows(np.arange(n) + 3 * n)
    table = order._sequence(3)
    places = np.empty(n, dtype=np.int64)
    begin = 0
    for end, shift in zip(table.ends.tolist(), table.shift.tolist(), strict=True):
        places[begin + shift : end + shift] = np.arange(begin, end)  # rows of a shard: contiguous
        begin = max(begin, end)
    first = 0
    for lane in range(lanes):
        own = places[rows[lane::lanes]]
        assert len(own) == max(0, -(-(n - lane) // lanes))
        for i in range(0, len(own), window):
            piece = own[i : i + window]
            assert np.array_equal(np.sort(piece), np.arange(first, first + len(piece)))
            first += len(piece)
    assert first == n


@settings(max_examples=60)
@given(
    shards=st.integers(1, 40),
    length=st.integers(1, 50),
    window=st.integers(1, 200),
    lanes=st.integers(1, 4),
)
def test_a_window_comes_from_at_most_the_shards_it_spans(
    shards: int, length: int, window: int, lanes: int
) -> None:
    order = order_of([length] * shards, window, lanes)
    own = shards_of(order, order.rows(np.arange(order.length)))
    spanned = (window - 2 + length) // length + 1 if window > 1 else 1
    for lane in range(lanes):
        lane_shards = own[lane::lanes]
        for i in range(0, len(lane_shards), window):
            assert len(set(lane_shards[i : i + window].tolist())) <= spanned


@pytest.mark.parametrize("nodes,ranks", [(2, 2), (2, 4), (4, 4), (4, 8), (3, 6)])
@pytest.mark.parametrize("lanes_a_rank", [1, 2])
def test_a_node_touches_only_the_shards_of_its_lanes(
    nodes: int, ranks: int, lanes_a_rank: int
) -> None:
    """Its part of the set, and one shard more for each lane that begins or ends inside one."""
    shards, batch = 120, 2 * ranks * lanes_a_rank
    order = order_of([16] * shards, window=24, lanes=ranks * lanes_a_rank)
    assert order.length % batch == 0
    positions = np.arange(order.length)
    own = shards_of(order, order.rows(positions))
    node = positions % batch % ranks * nodes // ranks
    touched = [set(own[node == i].tolist()) for i in range(nodes)]
    lanes_a_node = order.lanes // nodes
    assert all(len(t) <= shards // nodes + lanes_a_node for t in touched)
    assert set.union(*touched) == set(range(shards))


def test_seed_data_and_epoch_change_the_order() -> None:
    lengths, p = [100] * 10, np.arange(1000)
    base = order_of(lengths, 64).rows(p)
    for other in (
        order_of(lengths, 64, seed=1).rows(p),
        order_of(lengths, 64, key_hash="l").rows(p),
        order_of(lengths, 64).rows(p + 1000),
    ):
        assert (base == other).sum() < 50
        assert (
            shards_of(order_of(lengths), base).tolist()
            != shards_of(order_of(lengths), other).tolist()
        )


def test_two_windows_are_permuted_differently() -> None:
    order = order_of([100_000], window=1000, lanes=1)
    windows = order.rows(np.arange(100_000)).reshape(100, 1000) - 1000 * np.arange(100)[:, None]
    same = [(windows[i] == windows[j]).sum() for i in range(100) for j in range(i)]
    assert max(same) < 12  # Poisson(1), 4950 pairs: P = 4e-6


def test_items_land_everywhere_in_their_window_equally() -> None:
    """Chi-square of the (place, item) table of windows of 50; error rate 1e-4."""
    order = order_of([50 * 6000], window=50, lanes=1)
    inside = order.rows(np.arange(order.length)).reshape(-1, 50) % 50
    table = np.zeros((50, 50))
    np.add.at(table, (np.tile(np.arange(50), 6000), inside.ravel()), 1)
    chi = ((table - 120) ** 2 / 120).sum()
    assert 1e-4 < stats.chi2.sf(chi, 49**2) < 1 - 1e-4


def test_shards_take_every_turn_equally_often() -> None:
    """Chi-square of the (turn, shard) table over 1000 epochs; error rate 1e-4."""
    order = order_of([1] * 10, window=1, lanes=1)
    rows = order.rows(np.arange(10 * 1000)).reshape(1000, 10)
    table = np.stack([np.bincount(column, minlength=10) for column in rows.T])
    chi = ((table - 100) ** 2 / 100).sum()
    assert 1e-4 < stats.chi2.sf(chi, 9**2) < 1 - 1e-4


def test_a_window_of_everything_mixes_everything() -> None:
    order = order_of([100] * 50, window=5000, lanes=1)
    rows = order.rows(np.arange(5000)).astype(float)
    assert abs(np.corrcoef(rows, np.arange(5000))[0, 1]) < 4.5 / np.sqrt(5000)
    assert len(set(shards_of(order, order.rows(np.arange(64))).tolist())) > 25


def test_pickle_shape_look_ahead_and_bad_input() -> None:
    order = order_of([5, 0, 7], window=4, lanes=2)
    positions = np.arange(12).reshape(3, 4)
    rows = order.rows(positions)
    assert np.array_equal(pickle.loads(pickle.dumps(order)).rows(positions), rows)
    assert np.array_equal(rows.ravel(), order.rows(np.arange(12)))
    assert order.rows(np.array([], dtype=np.int64)).shape == (0,)
    assert (order.length, order.look_ahead, order_of([5], 2, 2).look_ahead) == (12, 8, 4)
    with pytest.raises(ShardError, match="start at 0"):
        order.rows(np.array([-1]))
    with pytest.raises(ShardError, match="at least one row"):
        order_of([0, 0])
    with pytest.raises(ShardError, match="window 0 and the lanes 2"):
        order_of([5], window=0)
    with pytest.raises(ShardError, match="window 3 and the lanes 0"):
        order_of([5], window=3, lanes=0)


def test_many_epochs_keep_few_tables() -> None:
    order = order_of([3, 4], window=3)
    order.rows(np.arange(7 * 200))
    assert len(order._epochs) <= 64


def test_a_far_epoch_is_entered_at_once() -> None:
    """A resume anywhere costs one table of shards and one batch."""
    order = WindowedOrder("k", 0, np.full(100_000, 10_000), window=1 << 16, lanes=64)
    begin = time.process_time()
    order.rows(np.arange(4096) + 7 * 10**9 + 10**8)
    assert time.process_time() - begin < 0.5


def test_the_network_is_the_one_of_the_global_order() -> None:
    """One shard, one lane, one window: a permutation by `permute` with the window's own keys."""
    order = order_of([30], window=30, lanes=1)
    keys = order._window_keys(0, 30, np.zeros(30, dtype=np.int64))
    assert order.rows(np.arange(30)).tolist() == permute(np.arange(30), 30, keys).tolist()
