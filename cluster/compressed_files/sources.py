"""A codec comes from a run, from a model file that was exported from one, or from two of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster.checkpoints.store import LAST
from cluster.runs import Run, open_run
from gencomp import model, recipes
from gencomp.errors import InputError
from gencomp.model import Model
from gencomp.system import Codec


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


def codec_between(found: Run | Model, toward: str | Path, share: float) -> Codec:
    """The codec that shows points between the decoder of a run and that of another one.

    Args:
        found: the run or the model, whose codec writes the files.
        toward: the other run, whose newest checkpoint is used, or a model file.
        share: the share of the other one's image, 0..1.

    Raises:
        InputError: the two have no codec between them.
    """
    try:
        mixed = found.system().mixed_codec(open_source(toward).system(), share)
    except InputError as error:
        raise InputError(f"{found.path} and {toward}: {error}") from None
    if mixed is None:
        recipe = found.recipe()
        raise InputError(
            f"{found.path} ({recipe.system}/{recipe.stage}) has the only decoder of its encoder, so"
            " there is none to move toward"
        )
    return mixed
