"""A run that starts from the state of another run and goes on with values of its own.

Training goes on from whatever checkpoint lies in a run's directory, under the recipe that lies
there. So a copied checkpoint is all that a warm start takes, and the other run stays what it is.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import IO, cast

from cluster.checkpoints import store
from cluster.runs import Run

log = logging.getLogger(__name__)


def copy_state(parent: Path, step: int, child: Path) -> None:
    """Copy the checkpoint of a run at its last step, and its log, into a run that has none.

    Where the child has a checkpoint already, nothing is copied.

    Args:
        parent: a run with a checkpoint of that step.
        step: the last step of the parent.
        child: a run that has not been trained.

    Raises:
        CorruptCheckpoint: the parent's checkpoint is missing or damaged.
    """
    source, target = Run(parent), Run(child)
    if store.directories(target.checkpoints):
        return
    found = _checkpoint(parent, step)
    store.verify(found)
    shutil.copyfile(source.metrics, target.metrics)
    target.checkpoints.mkdir(exist_ok=True)
    # The checkpoint comes last and in one step, so that a child with a checkpoint has all the rest.
    with store.partial(target.checkpoints, step) as place:
        for file in found.iterdir():
            with file.open("rb") as old, store.HashedFile(place / file.name) as new:
                shutil.copyfileobj(old, cast(IO[bytes], new))


def has_checkpoint(run: Path, step: int) -> bool:
    """Whether a run has a checkpoint of a step."""
    return (_checkpoint(run, step) / store.MANIFEST).exists()


def remove_damaged(run: Path, step: int) -> bool:
    """Remove the checkpoint of a step if it is damaged; tell whether the run lacks it now."""
    found = _checkpoint(run, step)
    try:
        store.verify(found)
    except store.CorruptCheckpoint as error:
        log.warning("%s: step %d is trained again", error, step)
        if found.exists():
            store.remove(found)
        return True
    return False


def keep_newest(run: Path) -> None:
    """Remove all checkpoints of a run but the newest, from which other runs may have started."""
    for old in store.directories(Run(run).checkpoints)[1:]:
        store.remove(old)


def _checkpoint(run: Path, step: int) -> Path:
    return Run(run).checkpoints / store.name_of(step)
