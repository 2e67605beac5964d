"""Draws of an item do not depend on its batch."""

from __future__ import annotations

import pickle

import torch

from gencomp.evaluation.draws import ItemDraws


def test_an_item_has_its_own_numbers_in_any_batch() -> None:
    together = ItemDraws.of(7, ("reconstruct", 0), [3, 900, 5])
    alone = ItemDraws.of(7, ("reconstruct", 0), [900])
    assert together.batch_size == 3
    assert torch.equal(together.normal("z", 4, 2)[1:2], alone.normal("z", 4, 2))
    assert torch.equal(together.uniform("u", -0.5, 0.5, 4)[1:2], alone.uniform("u", -0.5, 0.5, 4))


def test_items_keys_and_seeds_differ() -> None:
    numbers = [
        ItemDraws.of(seed, ("reconstruct", draw), [item]).normal("z", 3)
        for seed, draw, item in [(7, 0, 1), (7, 0, 2), (7, 1, 1), (8, 0, 1)]
    ]
    assert len({tuple(one.flatten().tolist()) for one in numbers}) == 4


def test_numbers_are_standard_normal_over_items() -> None:
    """4000 numbers: four standard errors of mean and variance."""
    numbers = ItemDraws.of(1, ("sample",), list(range(1000))).normal("z", 4)
    assert abs(numbers.mean()) < 4 / 4000**0.5
    assert abs(numbers.var() - 1) < 4 * (2 / 4000) ** 0.5


def test_draws_travel() -> None:
    draws = ItemDraws.of(7, ("sample",), [1, 2])
    assert pickle.loads(pickle.dumps(draws)) == draws
