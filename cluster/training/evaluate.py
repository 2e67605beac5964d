"""The evaluation of a system on a split, shared among the workers."""

from __future__ import annotations

from collections.abc import Callable

import torch

from cluster.data import held_out_batches, held_out_order, to_batch
from gencomp.draws import Draws
from gencomp.recipes.schema import BaseRecipe
from gencomp.sums import Sums
from gencomp.system import System, evaluation_mode
from shards.reading.reader import Split


def evaluate(
    system: System,
    split: Split,
    recipe: BaseRecipe,
    rank: int,
    world: int,
    device: torch.device,
    beat: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """The metrics on the first `evaluation.limit` images of a split, the same on every rank.

    The random numbers are keyed by the seed and the batch, so two evaluations of the same weights
    agree. The function `beat` is called after each batch.
    """
    settings = recipe.evaluation
    images = min(len(split), settings.limit or len(split))
    sums = Sums()
    with evaluation_mode(system.networks):
        order = held_out_order(recipe, split, settings.batch_size, images)
        shares = held_out_batches(recipe, split, order, rank, world)
        for number, (rows, host_batch) in enumerate(zip(order, shares, strict=True)):
            key = ("evaluate", number)
            draws = Draws(recipe.training.seed, key, len(rows), rank, world, device)
            sums.merge(system.evaluate(to_batch(host_batch, device), draws))
            beat()
    return system.summary(sums.all_reduced())
