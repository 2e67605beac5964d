"""Evaluate a system on a split, shared among the workers."""

from __future__ import annotations

import numpy as np
import torch

from gencomp.draws import Draws
from gencomp.metrics import Sums
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Batch, System, evaluation_mode
from shards.reader import Split
from shards.stream import Batch as HostBatch
from shards.stream import evaluation_batches


def evaluate(
    system: System, split: Split, recipe: BaseRecipe, rank: int, world: int, device: torch.device
) -> dict[str, float]:
    """Metrics on the first `evaluation.limit` images of a split; equal on every rank.

    The random numbers are keyed by the seed and the batch, so two evaluations of the same weights
    agree.
    """
    settings = recipe.evaluation
    images = min(len(split), settings.limit or len(split))
    sums = Sums()
    with evaluation_mode(system.networks):
        for number, host_batch in enumerate(
            evaluation_batches(split, settings.batch_size, rank=rank, world=world, limit=images)
        ):
            size = min(settings.batch_size, images - number * settings.batch_size)
            draws = Draws(recipe.training.seed, ("evaluate", number), size, rank, world, device)
            sums.merge(system.evaluate(to_batch(host_batch, device), draws))
    return system.summary(sums.all_reduced())


def to_batch(host: HostBatch, device: torch.device) -> Batch:
    """Arrays of the reader as tensors on the device, images as uint8 BCHW."""
    images = torch.from_numpy(np.ascontiguousarray(host.images)).to(device, non_blocking=True)
    rows, positions, labels = (
        torch.from_numpy(array).to(device, non_blocking=True)
        for array in (host.rows, host.positions, host.labels)
    )
    return Batch(images.permute(0, 3, 1, 2), rows, positions, labels)
