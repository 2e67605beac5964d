"""`gencomp shards index`, which writes an index for existing WebDataset tars."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from gencomp.cli.console import progress
from gencomp.cli.shards.showing import print_set, print_skipped
from gencomp.errors import InputError


def index(
    tars: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TARS ...")],
    /,
    out: Path | None = None,
    split: str | None = None,
    processes: int | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    decode: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    max_pixels: int | None = None,
) -> None:
    """Index existing WebDataset tars, local or remote; nothing is copied or changed.

    Members that belong to no image, such as README.md, are passed over and counted.

    Args:
        tars: A directory or URI of tars; or tars, also as a pattern: s3://BUCKET/a-{000..012}.tar.
        out: Directory for the index; by default that of the tars, if these are local.
        split: Split of all the tars; by default the word train, val or test in each file's name.
        processes: How many processes read tars at once; by default one for each CPU.
        on_error: What to do with a sample whose image cannot be read: stop, or skip, which leaves
            the sample out and lists it in dataset.json.
        decode: Decode all images, to find those with a good header and damaged pixels too.
        max_pixels: How many pixels an image may have; by default 268435456 (2^28).
    """
    from shards.building.foreign import index_tars
    from shards.pool import usable_cpus
    from shards.reading.decode import MAX_PIXELS

    if not tars:
        raise InputError("missing TARS; see gencomp shards index --help")
    wanted = usable_cpus() if processes is None else processes
    most = MAX_PIXELS if max_pixels is None else max_pixels
    with progress("indexing", "tars") as show:
        info = index_tars(tars, out, split, wanted, show, on_error, decode, most)
    print_set(out or tars[0], info)
    print_skipped(info)
