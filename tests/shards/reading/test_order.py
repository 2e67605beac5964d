"""The order: a permutation in every epoch, stable for ever, and shuffled well.

Statistical tests use fixed keys, so they give one answer; their thresholds are set so that a
fresh key would fail a correct order with a probability below 1e-4 for each test.
"""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shards.errors import ShardError
from shards.reading.order import EpochOrder

GOLDEN_10 = [5, 3, 7, 4, 2, 0, 9, 1, 6, 8, 6, 3, 1, 8, 2, 7, 0, 5, 4, 9]
GOLDEN_3M = [2212115, 1145548, 638322, 416514, 1016911, 2710972, 1896705, 1952523]
GOLDEN_FAR = [703266, 783291]


def test_golden_values() -> None:
    """These must never change: a resumed run depends on them."""
    assert EpochOrder("k", 0, 10).rows(np.arange(20)).tolist() == GOLDEN_10
    assert EpochOrder("k", 0, 3_000_000).rows(np.arange(8)).tolist() == GOLDEN_3M
    far = np.array([2**62, 2**62 + 1])
    assert EpochOrder("other", 7, 999_983).rows(far).tolist() == GOLDEN_FAR


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 10**6))
def test_every_epoch_is_a_permutation(length: int, seed: int, epoch: int) -> None:
    rows = EpochOrder("k", seed, length).rows(np.arange(length) + epoch * length)
    assert np.array_equal(np.sort(rows), np.arange(length))


@pytest.mark.parametrize("length", range(1, 40))
def test_tiny_lengths(length: int) -> None:
    rows = EpochOrder("k", 1, length).rows(np.arange(3 * length)).reshape(3, length)
    assert np.array_equal(np.sort(rows, axis=1), np.tile(np.arange(length), (3, 1)))


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(1, 5000),
    positions=st.lists(st.integers(0, 2**62), min_size=1, max_size=40),
)
def test_random_access_equals_one_by_one(length: int, positions: list[int]) -> None:
    """Any positions in any order, over many epochs at once."""
    order = EpochOrder("k", 3, length)
    one_by_one = [order.rows(np.array([p]))[0] for p in positions]
    assert order.rows(np.array(positions)).tolist() == one_by_one


def test_shape_epoch_and_bad_input() -> None:
    order = EpochOrder("k", 0, 10)
    positions = np.arange(12).reshape(3, 4)
    assert np.array_equal(order.rows(positions).ravel(), order.rows(np.arange(12)))
    assert order.rows(np.array([], dtype=np.int64)).shape == (0,)
    assert [order.epoch(p) for p in (0, 9, 10, 29)] == [0, 0, 1, 2]
    with pytest.raises(ShardError, match="start at 0"):
        order.rows(np.array([-1]))
    with pytest.raises(ShardError, match="at least one row"):
        EpochOrder("k", 0, 0)


def test_seed_data_and_epoch_change_the_order() -> None:
    p = np.arange(1000)
    base = EpochOrder("k", 0, 1000).rows(p)
    for other in (
        EpochOrder("k", 1, 1000).rows(p),
        EpochOrder("l", 0, 1000).rows(p),
        EpochOrder("k", 0, 1000).rows(p + 1000),
    ):
        assert (base == other).sum() < 10  # Poisson(1): P(>= 10) = 1e-7


@pytest.mark.parametrize("length", [2, 3, 4, 5, 6])
def test_all_permutations_of_tiny_lengths_are_equally_likely(length: int) -> None:
    """Chi-square over all n! permutations; error rate 1e-4."""
    epochs = 200 * math.factorial(length)
    rows = EpochOrder("chi", 0, length).rows(np.arange(epochs * length)).reshape(epochs, length)
    codes = (rows * length ** np.arange(length)).sum(axis=1)
    counts = np.zeros(math.factorial(length))
    found = np.unique(codes, return_counts=True)[1]
    counts[: len(found)] = found
    assert stats.chisquare(counts).pvalue > 1e-4


def test_both_parities_occur_with_odd_sides() -> None:
    """A network of odd sides, 9 = 3 x 3, would only give even permutations. 2^-199 by chance."""
    rows = EpochOrder("k", 0, 9).rows(np.arange(9 * 200)).reshape(200, 9)
    signs = {round(np.linalg.det(np.eye(9)[r])) for r in rows}
    assert signs == {-1, 1}


@pytest.mark.parametrize("length", [7, 24, 64, 300])
def test_items_land_everywhere_equally(length: int) -> None:
    """Chi-square of the (place, item) table over many epochs; error rate 1e-4."""
    epochs = 60 * length if length < 100 else 3000
    rows = EpochOrder("k", 5, length).rows(np.arange(epochs * length)).reshape(epochs, length)
    table = np.zeros((length, length))
    for place in range(length):
        table[place] = np.bincount(rows[:, place], minlength=length)
    expected = epochs / length
    chi = ((table - expected) ** 2 / expected).sum()
    assert 1e-4 < stats.chi2.sf(chi, (length - 1) ** 2) < 1 - 1e-4


@pytest.mark.parametrize("length", [1000, 4096, 4097, 100_000, 3_000_000])
def test_no_serial_correlation(length: int) -> None:
    """Rank correlation at lags 1, 2, 7 and 64 and with the identity; each |z| < 4.5 (7e-6)."""
    n = min(length, 200_000)
    rows = EpochOrder("k", 2, length).rows(np.arange(n)).astype(float)
    pairs = [(rows[:-lag], rows[lag:]) for lag in (1, 2, 7, 64)] + [(rows, np.arange(n))]
    for x, y in pairs:
        assert abs(np.corrcoef(x, y)[0, 1]) * math.sqrt(len(x)) < 4.5


def test_neighbours_in_the_index_part(length: int = 10_000) -> None:
    """Rows that lie next to each other in the index land far apart: mean distance n / 3.

    The mean of n dependent distances has standard error near n / sqrt(18 n); |z| < 4.5.
    """
    rows = EpochOrder("k", 0, length).rows(np.arange(length))
    place = np.empty(length)
    place[rows] = np.arange(length)
    distance = np.abs(np.diff(place)).mean()
    assert abs(distance - length / 3) < 4.5 * length / math.sqrt(18 * length)


def test_consecutive_epochs_are_independent() -> None:
    """Correlation of a row's places in epochs 0 and 1; |z| < 4.5."""
    n = 50_000
    rows = EpochOrder("k", 0, n).rows(np.arange(2 * n)).reshape(2, n)
    places = np.argsort(rows, axis=1).astype(float)
    assert abs(np.corrcoef(places)[0, 1]) * math.sqrt(n) < 4.5


def test_speed_does_not_depend_on_the_position() -> None:
    """O(1): far positions cost what near ones cost, and nothing like the length."""
    order = EpochOrder("k", 0, 10**12)
    p = np.arange(4096)
    order.rows(p)
    begin = time.process_time()
    order.rows(p + 7 * 10**12 + 10**11)
    assert time.process_time() - begin < 0.25  # a permutation array would take 8 terabytes
