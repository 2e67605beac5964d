"""`gencomp models`, which lists model files with their operating points."""

from __future__ import annotations

import sys
from pathlib import Path

import tyro

from gencomp.cli.console import print_table
from gencomp.exit_codes import DONE, FAILED, SPEAKER


def models(path: tyro.conf.Positional[Path], /) -> int:
    """List the model files of a folder with their operating points, or print the card of one file.

    A row is what gencomp files has measured before the model was exported; without that, what
    gencomp evaluate has, or the last evaluation of the training. Bits per pixel of files are those
    of the code in joint files. Only descriptions are read; using a model checks its content.

    Args:
        path: A folder with .gencomp files, which gencomp export writes, or one such file.
    """
    from cluster.results import model_zoo
    from gencomp.model_file import read_description

    if path.is_file():
        print("\n".join(model_zoo.card_lines(model_zoo.Found(path, read_description(path)))))
        return DONE
    found, refused = model_zoo.models(path)
    if found:
        print_table(f"Models in {path}", model_zoo.COLUMNS, model_zoo.rows(found))
    for said in refused:
        print(f"{SPEAKER}{said}", file=sys.stderr)
    return FAILED if refused else DONE
