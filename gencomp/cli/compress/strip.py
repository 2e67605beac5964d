"""`gencomp strip`, which leaves the refinement of a compressed file out, without a run."""

from __future__ import annotations

from pathlib import Path

import tyro

from cluster.compressed_files import images, places
from cluster.files import write_bytes
from gencomp.errors import InputError
from gencomp.exit_codes import DONE
from gencomp.systems import without_refinement


def strip(
    stream: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    /,
    overwrite: bool = False,
) -> int:
    """Write a compressed file without the refinement of its pictures.

    What is left is decoded by every decoder of the base, to the same images as before, and no
    longer by that of the refinement. No run or model is needed, so whoever passes a file on can
    make it smaller.

    Args:
        stream: A compressed file, written by a run that refines the code of another one.
        out: The compressed file to write.
        overwrite: Replace a file that exists.
    """
    places.require_stream_name(out)
    places.require_file(out, overwrite)
    whole = images.read(stream)
    try:
        kept = without_refinement(whole)
    except InputError as error:
        raise InputError(f"{stream} cannot be stripped: {error}") from None
    write_bytes(out, kept)
    print(f"{out}: {len(kept)} bytes, without the {len(whole) - len(kept)} of the refinement")
    return DONE
