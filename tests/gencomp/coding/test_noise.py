"""Noise of decoders: uniform, keyed by everything that it should be, the same everywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gencomp.coding.noise import MAX_DRAW, keyed_uniform
from gencomp.errors import InputError

MODEL = b"12345678"


def test_it_is_uniform() -> None:
    """10,240 numbers on [−1, 1), five standard errors."""
    drawn = np.concatenate([keyed_uniform(bytes([i]), MODEL, (512,)) for i in range(20)])
    assert -1 <= drawn.min() and drawn.max() < 1
    assert drawn.mean() == pytest.approx(0, abs=5 / math.sqrt(3 * drawn.size))
    assert drawn.var() == pytest.approx(1 / 3, rel=0.05)
    histogram = np.histogram(drawn, 16, (-1, 1))[0]
    assert ((histogram - 640) ** 2 / 640).sum() < 15 + 5 * math.sqrt(30)


def test_everything_counts() -> None:
    first = keyed_uniform(b"ab", MODEL, (8, 4, 4))
    assert np.array_equal(first, keyed_uniform(b"ab", MODEL, (8, 4, 4), 0, 0, salt=0))
    others = [
        keyed_uniform(b"ac", MODEL, (8, 4, 4)),
        keyed_uniform(b"ab", b"12345679", (8, 4, 4)),
        keyed_uniform(b"ab", MODEL, (8, 4, 4), place=1),
        keyed_uniform(b"ab", MODEL, (8, 4, 4), draw=1),
        keyed_uniform(b"ab", MODEL, (8, 4, 4), draw=MAX_DRAW),
        keyed_uniform(b"ab", MODEL, (8, 4, 4), salt=1),
        keyed_uniform(b"ab", MODEL, (8, 4, 4), salt=2**24 - 1),
    ]
    for i, one in enumerate([first, *others]):
        for other in others[i:]:
            assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.45 or one is other


def test_golden_numbers() -> None:
    """Decoders of all times and machines draw these."""
    drawn = keyed_uniform(b"code", MODEL, (3,), place=2, draw=5)
    assert [float(number).hex() for number in drawn] == GOLDEN


def test_no_shape_no_noise() -> None:
    assert keyed_uniform(b"", MODEL, (0, 4, 4)).shape == (0, 4, 4)


@pytest.mark.parametrize("draw", [-1, MAX_DRAW + 1])
def test_other_draws_are_refused(draw: int) -> None:
    with pytest.raises(InputError, match=f"a draw is a number from 0 to .*, not {draw}"):
        keyed_uniform(b"", MODEL, (1,), draw=draw)


GOLDEN = ["-0x1.d4a48e1f0affcp-1", "0x1.e55efa3ec4f9ep-1", "-0x1.140b7008524e8p-2"]
