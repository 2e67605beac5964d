"""Candidates: the table, known words, normal moments, and independence of paths and blocks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from gencomp.coding.relative_entropy import candidates, normals
from gencomp.coding.relative_entropy.codes import Key
from gencomp.errors import InputError


def drawn(paths_N: np.ndarray, first: int = 0, width: int = 1024, rows: int = 36) -> np.ndarray:
    """All candidates of some paths for a piece of variance 1, [N, rows, width]."""
    values_RW = candidates.values(candidates.Rows(Key(7)).places(width, first, rows))
    bytes_NB = candidates.sign_bytes(paths_N, width)
    signs_NW = candidates.signs_of_bytes()[bytes_NB].reshape(len(paths_N), width)
    return signs_NW[:, None] * values_RW


def test_table_holds_the_quantiles() -> None:
    expected = special.ndtri((np.arange(65536) + 0.5) / 65536)
    assert normals.quantiles() == pytest.approx(expected, abs=2**-28)
    assert np.array_equal(normals.quantiles(), -normals.quantiles()[::-1])
    assert normals.quantiles().var() == pytest.approx(0.99998, abs=1e-5)
    assert stats.kurtosis(normals.quantiles(), fisher=False) == pytest.approx(2.9992, abs=1e-4)


def test_known_words() -> None:
    """Numbers that a file of today is decoded with for ever."""
    rows = candidates.Rows(Key(0x0123456789ABCDEF, 5, 3))
    assert rows.places(32, 7, 2)[:, :4].tolist() == [
        [59458, 29196, 6450, 61445],
        [56738, 57476, 51289, 23338],
    ]
    paths_N = rows.empty_paths(2)
    assert [f"{path:016x}" for path in paths_N] == ["a6a40f2dc8d000ff", "80b36ddc5ad05f5e"]
    longer = candidates.longer(paths_N, np.array([0, 4095]))
    assert [f"{path:016x}" for path in longer] == ["ecf219e37d5d0300", "a4fc2bcf4927541a"]
    assert candidates.sign_bytes(paths_N, 32).tolist() == [
        [123, 128, 105, 182],
        [168, 116, 47, 164],
    ]


def test_splitmix64_is_that_of_its_authors() -> None:
    """The first words of the published generator at seed 1234567."""
    start = np.uint64(1234567)
    found = candidates.sign_bytes(np.array([start]), 192).view("<u8")[0]
    assert found.tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_a_row_is_had_without_those_before_it() -> None:
    rows = candidates.Rows(Key(1, 2, 3))
    all_RW = rows.places(96, 0, 50)
    assert np.array_equal(rows.places(96, 17, 1), all_RW[17:18])
    assert np.array_equal(rows.places(96, 3, 20), all_RW[3:23])
    for other in (rows.places(96, 50, 50), candidates.Rows(Key(1, 2, 4)).places(96, 0, 50)):
        assert (other == all_RW).mean() < 0.01


def test_each_step_has_rows_of_its_own_for_a_while() -> None:
    assert [candidates.first_row(step, 100) for step in range(7)] == [0, 100, 200, 300, 400, 0, 100]
    assert [candidates.first_row(step, 700) for step in range(3)] == [0, 0, 0]


def test_moments() -> None:
    """Each bound is 4 standard errors of 1.05 million draws or more: 1 in 10,000 fails."""
    found = drawn(candidates.Rows(Key(7)).empty_paths(1), width=4096, rows=256).ravel()
    assert abs(found.mean()) < 0.004
    assert found.var() == pytest.approx(1, abs=0.006)
    assert stats.kurtosis(found, fisher=False) == pytest.approx(3, abs=0.03)


def test_paths_and_blocks_are_uncorrelated() -> None:
    """The bound is 5 standard errors of 260,000 coordinates, whose signs are independent."""
    rows, width = candidates.Rows(Key(7)), 1 << 18
    blocks = rows.empty_paths(4)
    paths = candidates.longer(np.repeat(blocks[:1], 4), np.arange(4))
    for names in (blocks, paths):
        found = drawn(names, width=width, rows=2).reshape(4, -1)
        for other in range(1, 4):
            assert abs(np.corrcoef(found[0], found[other])[0, 1]) < 0.01
    each = [drawn(blocks[:1], first=row, width=width, rows=1).ravel() for row in range(2)]
    assert abs(np.corrcoef(*each)[0, 1]) < 0.01


def test_names_of_paths_differ() -> None:
    paths = candidates.Rows(Key(0)).empty_paths(3)
    for _ in range(3):
        paths = np.unique(candidates.longer(paths[:, None], np.arange(40)).ravel())
    assert len(paths) == 3 * 40**3


class TestPatterns:
    @pytest.mark.parametrize(
        ("count", "dimensions", "expected"),
        [(36, 1000, 1), (63, 1000, 1), (64, 1, 2), (245, 32, 4), (4096, 300, 32), (4096, 9999, 64)],
    )
    def test_number(self, count: int, dimensions: int, expected: int) -> None:
        assert candidates.patterns_of(count, dimensions) == expected

    @pytest.mark.parametrize("patterns", [2, 8, 64])
    def test_they_are_orthogonal_or_opposite(self, patterns: int) -> None:
        signs_PG = candidates.pattern_signs(np.arange(patterns), patterns)
        products_PP = signs_PG @ signs_PG.T
        groups = patterns // 2
        assert np.array_equal(np.unique(products_PP), np.unique([-groups, 0, groups])[-3:]) or (
            groups == 1
        )
        assert (np.abs(products_PP).sum(1) == 2 * groups).all()

    @pytest.mark.parametrize("patterns", [1, 2, 16])
    def test_groups_are_even(self, patterns: int) -> None:
        x_CD = np.arange(1, 71, dtype=float).reshape(2, 35)
        x_CW = candidates.grouped(x_CD, 64, patterns, 0.0)
        assert np.array_equal(candidates.ungrouped(x_CW, patterns)[:, :35], x_CD)
        used = (x_CW.reshape(2, max(1, patterns // 2), -1) > 0).sum(2)
        assert used.max() - used.min() <= 1


@pytest.mark.parametrize("key", [Key(-1), Key(2**64), Key(0, -1), Key(0, 0, 2**32)])
def test_keys_out_of_range_are_refused(key: Key) -> None:
    with pytest.raises(InputError, match="of a key is 0 to"):
        candidates.Rows(key)
