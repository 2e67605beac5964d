"""`gencomp shards index`, which writes an index for existing WebDataset tars."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from gencomp.cli.console import progress
from gencomp.cli.shards.showing import print_set
from gencomp.errors import InputError


def index(
    tars: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TARS ...")],
    /,
    out: Path | None = None,
    split: str | None = None,
    processes: int | None = None,
) -> None:
    """Index existing WebDataset tars, local or remote; nothing is copied or changed.

    Args:
        tars: A directory or URI of tars; or tars, also as a pattern: s3://BUCKET/a-{000..012}.tar.
        out: Directory for the index; by default that of the tars, if these are local.
        split: Split of all the tars; by default the word train, val or test in each file's name.
        processes: How many processes read tars at once; by default one for each CPU.
    """
    from shards.building.foreign import index_tars
    from shards.pool import usable_cpus

    if not tars:
        raise InputError("missing TARS; see gencomp shards index --help")
    wanted = usable_cpus() if processes is None else processes
    with progress("indexing", "tars") as show:
        info = index_tars(tars, out, split, wanted, show)
    print_set(out or tars[0], info)
