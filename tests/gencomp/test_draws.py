"""Random numbers that depend on what they are for, and on nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gencomp.draws import Draws

KEY = ("train", 7, 0)


@given(st.integers(1, 17), st.integers(1, 5))
def test_the_ranks_hold_the_rows_of_one(batch_size: int, world: int) -> None:
    whole = Draws(3, KEY, batch_size).normal("prior", 4)
    together = torch.empty_like(whole)
    for rank in range(world):
        together[rank::world] = Draws(3, KEY, batch_size, rank, world).normal("prior", 4)
    assert torch.equal(together, whole)


def test_repeatable_and_independent_of_what_was_drawn_before() -> None:
    first = Draws(3, KEY, 5)
    a = first.normal("prior", 2)
    torch.randn(100)
    first.uniform("noise", 0, 1, 2)
    assert torch.equal(first.normal("prior", 2), a)
    assert torch.equal(Draws(3, KEY, 5).normal("prior", 2), a)


def test_every_part_of_the_key_matters() -> None:
    several = [
        Draws(3, KEY, 5).normal("prior", 2),
        Draws(4, KEY, 5).normal("prior", 2),
        Draws(3, ("train", 8, 0), 5).normal("prior", 2),
        Draws(3, ("train", 7, 1), 5).normal("prior", 2),
        Draws(3, ("evaluate", 7, 0), 5).normal("prior", 2),
        Draws(3, ("train", "7", 0), 5).normal("prior", 2),
        Draws(3, KEY, 5).normal("prior2", 2),
    ]
    for i, a in enumerate(several):
        assert not any(torch.equal(a, b) for b in several[i + 1 :])


def test_the_globals_of_torch_are_left_alone() -> None:
    before = torch.get_rng_state()
    Draws(3, KEY, 5).normal("prior", 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_golden_values() -> None:
    """Another numbering would change every run that resumes."""
    assert Draws(321, ("train", 0, 0), 2).normal("prior", 1).flatten().tolist() == pytest.approx(
        [-1.5729844570159912, 0.45898523926734924], abs=1e-6
    )


def test_moments() -> None:
    """10^5 numbers each: five standard errors, wrong less than once in 10^6."""
    n = 100_000
    normal = Draws(1, KEY, n).normal("a").double()
    assert normal.mean().item() == pytest.approx(0, abs=5 / math.sqrt(n))
    assert normal.var().item() == pytest.approx(1, abs=5 * math.sqrt(2 / n))
    uniform = Draws(1, KEY, n).uniform("a", -0.5, 0.5).double()
    assert -0.5 <= uniform.min() and uniform.max() < 0.5
    assert uniform.mean().item() == pytest.approx(0, abs=5 / math.sqrt(12 * n))
    other = Draws(1, ("train", 8, 0), n).normal("a").double()
    assert (normal * other).mean().item() == pytest.approx(0, abs=5 / math.sqrt(n))
