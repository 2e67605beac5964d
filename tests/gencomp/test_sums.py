"""Sums merge to the statistics of all samples, whatever the batches and their order."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gencomp.sums import Sums

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=30)


@given(VALUES, st.integers(1, 5), st.randoms())
def test_any_split_in_any_order(values: list[float], parts: int, random: object) -> None:
    pieces = [values[i::parts] for i in range(parts)]
    random.shuffle(pieces)  # type: ignore[attr-defined]
    total = Sums()
    for piece in pieces:
        one = Sums()
        one.add("x", torch.tensor(piece, dtype=torch.float64))
        total.merge(one)
    assert total.count("x") == len(values)
    assert total.mean("x") == pytest.approx(statistics.fmean(values), abs=1e-9)
    expected = statistics.stdev(values) / math.sqrt(len(values))
    assert total.standard_error("x") == pytest.approx(expected, rel=1e-6, abs=1e-5)


def test_none_and_one() -> None:
    sums = Sums()
    sums.add("x", torch.empty(0))
    assert (
        sums.count("x") == 0 and math.isnan(sums.mean("x")) and math.isnan(sums.standard_error("x"))
    )
    sums.add("x", torch.tensor([3.0]))
    assert sums.mean("x") == 3 and math.isnan(sums.standard_error("x"))


def test_float64_keeps_what_float32_would_lose() -> None:
    sums = Sums()
    for _ in range(100):
        sums.add("x", torch.tensor([1e8, 1.0, -1e8]))
    assert sums.mean("x") == pytest.approx(1 / 3, rel=1e-9)


def test_a_value_of_a_batch_counts_once() -> None:
    sums = Sums()
    sums.add_global("mmd", torch.tensor(0.5, requires_grad=True))
    sums.add_global("mmd", torch.tensor(0.1))
    assert sums.count("mmd") == 2 and sums.mean("mmd") == pytest.approx(0.3)
    assert sums.all_reduced().values.keys() == {"mmd"}


def test_equal_values_have_no_error() -> None:
    """Rounding must not make the variance negative."""
    sums = Sums()
    sums.add("x", torch.full((1000,), 0.1, dtype=torch.float64))
    assert 0 <= sums.standard_error("x") < 1e-9
