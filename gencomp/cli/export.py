"""`gencomp export`, which writes the codec of a finished run to one model file."""

from __future__ import annotations

from pathlib import Path

import tyro

from gencomp.cli.arguments import Checkpoint
from gencomp.errors import InputError


def export(
    run: tyro.conf.Positional[Path],
    file: tyro.conf.Positional[Path],
    /,
    licence: str | None = None,
    checkpoint: Checkpoint = "last",
    overwrite: bool = False,
) -> None:
    """Write the codec of a finished run to one file, with which others compress and decompress.

    The file holds the networks and tables of the codec, the recipe without folders of this machine,
    the fingerprints, and a card: the data, the results of gencomp train, evaluate and files for
    these weights with their protocols, and the licence. It and the run write the same compressed
    files and read each other's. gencomp compress and gencomp decompress take it in place of a run,
    on a machine without runs and without Ray; gencomp.load takes it in Python. An existing file is
    kept if it holds the same.

    Args:
        run: Directory of a finished run of a stage with a codec.
        file: The file to write, whose name ends in .gencomp.
        licence: Licence of the model, for example CC-BY-4.0; it is a text that the card states.
        overwrite: Replace the file if it exists and holds something else.
    """
    from cluster.files import write_bytes
    from cluster.model_export import packed
    from cluster.runs import open_run
    from gencomp.model_file import SUFFIX

    if file.suffix != SUFFIX:
        raise InputError(f"{file} must end in {SUFFIX}, as model files do")
    if not file.parent.is_dir():
        raise InputError(f"{file} cannot be written: there is no folder {file.parent}")
    if file.is_dir():
        raise InputError(f"{file} is a folder, but a file is to be written")
    content = packed(open_run(run, checkpoint), licence)
    if not file.exists() or overwrite:
        write_bytes(file, content)
    elif file.read_bytes() != content:
        raise InputError(f"{file} exists and holds something else: add --overwrite to replace it")
    print(f"{file}: {len(content)} bytes")
