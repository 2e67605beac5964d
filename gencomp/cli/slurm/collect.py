"""`gencomp slurm collect`, which merges what the jobs of an evaluation have written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from gencomp.cli.console import show


def collect(
    directory: Path, /, require_all: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
) -> None:
    """Merge what the jobs have written into one file, such as metrics.json, and show the result.

    The command may be given while jobs still run; the result then says which blocks are missing.

    Args:
        directory: The evaluation, RUN/evaluations/NAME.
        require_all: Write no result while blocks are missing.
    """
    from slurm.kinds import open_jobs

    jobs = open_jobs(directory)
    found = jobs.collect(require_all)
    show(found)
    if found.missing:
        print(f"PARTIAL: missing are {jobs.name_blocks(found.missing)}")
    print(f"{found.result}: {found.images} images, {'partial' if found.missing else 'complete'}")
