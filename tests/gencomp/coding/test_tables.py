"""Statistics of codes: exact probabilities, the right parents, no more than the data bear."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gencomp.coding.tables import PRECISION, empty, fit, frequencies, max_parents


@given(
    st.lists(st.integers(0, 2**29), min_size=2, max_size=256).map(lambda c: np.array(c, np.int64))
)
def test_probabilities_are_exact_integers(counts_L: np.ndarray) -> None:
    found = frequencies(counts_L)
    least = 2**14 // len(counts_L)
    assert found.dtype == np.int64 and found.sum() == 2**PRECISION and found.min() >= least
    exact = np.cumsum((2 * counts_L + 1).astype(object)) * (2**PRECISION - least * len(counts_L))
    total = sum(2 * int(c) + 1 for c in counts_L)
    edges = [0, *(int(edge) // total for edge in exact)]
    assert found.tolist() == [b - a + least for a, b in pairwise(edges)]


@pytest.mark.parametrize("levels", [2, 3, 16, 256])
def test_no_symbol_is_free(levels: int) -> None:
    """Whatever was counted, a symbol costs 0.0007 bits, so files bound their symbols."""
    counts = np.zeros(levels, np.int64)
    counts[0] = 2**33
    assert 7e-4 < PRECISION - np.log2(frequencies(counts)[0]) < 1.5e-3


def test_without_counts_all_levels_are_alike() -> None:
    assert np.ptp(frequencies(empty(3, 5).counts_NCL)) <= 1


@pytest.mark.parametrize(
    ("levels", "parents"), [(2, 4), (3, 2), (4, 2), (5, 1), (16, 1), (17, 0), (256, 0)]
)
def test_contexts_are_few(levels: int, parents: int) -> None:
    assert max_parents(levels) == parents
    assert empty(7, levels).counts_NCL.shape == (7, levels**parents, levels)


def test_parents_are_what_a_symbol_depends_on() -> None:
    """Symbol 4 is a noisy copy of 0, symbol 5 the conjunction of 1 and 3; the rest are coins."""
    generator = np.random.default_rng(0)
    symbols = generator.integers(0, 2, (4000, 6))
    symbols[:, 4] = symbols[:, 0] ^ (generator.random(4000) < 0.05)
    symbols[:, 5] = symbols[:, 1] & symbols[:, 3]
    tables = fit(symbols, 2)
    parents = [{place - back for back in row if back} for place, row in enumerate(tables.back_NP)]
    assert parents == [set(), set(), set(), set(), {0}, {1, 3}]
    assert (tables.counts_NCL.sum((1, 2)) == 4000).all()
    table = {tuple(row) for row in tables.counts_NCL[5] if row.sum()}
    ones = int(symbols[:, 5].sum())
    assert {row for row in table if row[1]} == {(0, ones)}


@pytest.mark.parametrize("levels", [2, 3, 16])
def test_independent_symbols_have_no_parents(levels: int) -> None:
    """The penalty is log2(S)/2 bits a count; each of these 435 pairs passes by chance with a
    probability below 0.01 for two levels, and only fewer for more."""
    symbols = np.random.default_rng(1).integers(0, levels, (2048, 30))
    assert (fit(symbols, levels).back_NP > 0).sum() <= 8


def test_contexts_of_places_count_the_parents() -> None:
    symbols = np.random.default_rng(2).integers(0, 3, (500, 9))
    symbols[:, 8] = (symbols[:, 2] + symbols[:, 5]) % 3
    symbols[:, 7] = symbols[:, 6]
    tables = fit(symbols, 3)
    contexts = tables.contexts(symbols)
    for place, row in enumerate(tables.back_NP):
        expected = np.zeros(500, np.int64)
        for back in row:
            expected = expected * 3 + (symbols[:, place - back] if back else 0)
        assert (contexts[:, place] == expected).all()
        counts = np.zeros((9, 3), np.int64)
        np.add.at(counts, (expected, symbols[:, place]), 1)
        assert (tables.counts_NCL[place] == counts).all()


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (5, 1)])
def test_few_samples(shape: tuple[int, int]) -> None:
    tables = fit(np.zeros(shape, np.int64), 2)
    assert not tables.back_NP.any()
    assert tables.counts_NCL.sum() == np.prod(shape)
