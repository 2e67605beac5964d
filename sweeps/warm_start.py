"""A run that goes on from the state of another one, with values of its own.

Training continues from whatever checkpoint lies in a run's directory, under the recipe that lies
there. So a copied checkpoint is all it takes, and the two runs stay what they are.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import IO, cast

from cluster.checkpoints import store
from cluster.runs import Run

log = logging.getLogger(__name__)


def take_over(parent: Path, step: int, child: Path) -> None:
    """Copy the state of a run at its last step, and its log; done before, nothing is copied.

    Args:
        parent: a run with a checkpoint of that step.
        child: a run that has not been trained.

    Raises:
        CorruptCheckpoint: the checkpoint is missing or damaged.
    """
    source, target = Run(parent), Run(child)
    if store.directories(target.checkpoints):
        return
    found = source.checkpoints / store.name_of(step)
    store.verify(found)
    shutil.copyfile(source.metrics, target.metrics)
    target.checkpoints.mkdir(exist_ok=True)
    # Last, and in one step: a child with a checkpoint has all of it.
    with store.partial(target.checkpoints, step) as place:
        for file in found.iterdir():
            with file.open("rb") as old, store.HashedFile(place / file.name) as new:
                shutil.copyfileobj(old, cast(IO[bytes], new))


def has_reached(run: Path, step: int) -> bool:
    """Whether a run has a checkpoint of a step."""
    return (_at(run, step) / store.MANIFEST).exists()


def remove_damaged(run: Path, step: int) -> bool:
    """Whether the checkpoint of a step was missing or damaged; now it is missing."""
    found = _at(run, step)
    try:
        store.verify(found)
    except store.CorruptCheckpoint as error:
        log.warning("%s: step %d is trained again", error, step)
        if found.exists():
            store.remove(found)
        return True
    return False


def keep_newest(run: Path) -> None:
    """Remove all checkpoints of a run but the newest, from which others may have gone on."""
    for old in store.directories(Run(run).checkpoints)[1:]:
        store.remove(old)


def _at(run: Path, step: int) -> Path:
    return Run(run).checkpoints / store.name_of(step)
