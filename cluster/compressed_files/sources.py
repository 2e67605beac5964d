"""A codec comes from a run, or from a model file that was exported from one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster.checkpoints.store import LAST
from cluster.runs import Run, open_run
from gencomp import model, recipes
from gencomp.errors import InputError
from gencomp.model import Model


def open_source(
    path: str | Path, checkpoint: str | int = LAST, writing: Sequence[str] = ()
) -> Run | Model:
    """What a codec comes from: a run, or a model file where the path is a file.

    Args:
        path: the run's directory, or the model file.
        checkpoint: the choice of the run's checkpoint; a model file holds a single one.
        writing: words that say how the codec writes files, where it is not as the recipe says.

    Raises:
        InputError: there is no run and no model file, or a checkpoint of a model file is chosen.
    """
    if not Path(path).is_file():
        return open_run(path, checkpoint, writing)
    if checkpoint != LAST:
        raise InputError(
            f"{path} is a model file, which holds the weights of one checkpoint: leave out"
            f" --checkpoint {checkpoint}"
        )
    return model.load(path, recipes.split_overrides(writing)[1])
