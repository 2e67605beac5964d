"""Rows that hold the same image, against brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shards.building.duplicates import find_duplicates, stands_alone


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=30),
)
def test_duplicates_against_brute_force(rows: list[tuple[int, int]]) -> None:
    hashes = np.array([(7, value) for value, _ in rows], dtype=np.uint64).reshape(-1, 2)
    splits = np.array([split for _, split in rows], dtype=np.int16)
    across, within = find_duplicates(hashes, splits)
    groups: dict[int, list[int]] = {}
    for value, split in rows:
        groups.setdefault(value, []).append(split)
    assert len(across) == sum(len(set(group)) - 1 for group in groups.values())
    assert len(within) == sum(len(group) - len(set(group)) for group in groups.values())
    for a, b in [*across.tolist(), *within.tolist()]:
        assert a < b and rows[a][0] == rows[b][0]
    assert all(rows[a][1] != rows[b][1] for a, b in across.tolist())
    assert all(rows[a][1] == rows[b][1] for a, b in within.tolist())
    assert stands_alone(hashes).tolist() == [len(groups[value]) == 1 for value, _ in rows]
