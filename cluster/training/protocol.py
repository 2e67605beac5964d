"""The protocol by which the final metrics of a run were measured."""

from __future__ import annotations

from typing import Any

import gencomp
import shards
from cluster import data
from cluster.checkpoints import store
from cluster.runs import Run
from gencomp.recipes.schema import BaseRecipe
from shards.reading.reader import Split


def protocol(run: Run, recipe: BaseRecipe, held_out: Split) -> dict[str, Any]:
    """The protocol of the final metrics, by which they can be compared with others or merged."""
    checkpoint = store.newest(run.checkpoints)
    assert checkpoint is not None
    return {
        "weights": checkpoint.networks_hash(),
        "data": held_out.key_hash,
        "stored": data.stored(shards.open_set(recipe.evaluation_shards()).info),
        "transforms": data.evaluation_protocol(recipe),
        "limit": recipe.evaluation.limit,
        "batch_size": recipe.evaluation.batch_size,
        "seed": recipe.training.seed,
        "gencomp": gencomp.__version__,
    }
