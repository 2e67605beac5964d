"""`gencomp features`, which writes a network that judges images to a TorchScript file."""

from __future__ import annotations

from pathlib import Path

import tyro

from gencomp.cli.arguments import Checkpoint
from gencomp.errors import InputError


def features(
    run: tyro.conf.Positional[Path],
    file: tyro.conf.Positional[Path],
    /,
    checkpoint: Checkpoint = "last",
) -> None:
    """Write the feature or segmentation network of a finished run to a TorchScript file.

    A feature network maps uint8 images of any size to features, which `gencomp evaluate --features`
    compares; a segmentation network maps them to the classes of their pixels, for `gencomp evaluate
    --segmentation`. The command prints the SHA-256 of the file, by which evaluations know the
    network. An existing file is kept if it holds the same network, and is never replaced.

    Args:
        run: Directory of a finished run of the system classifier or pixel_classifier.
        file: The file to write, for example features.pt.
    """
    import hashlib

    from cluster.files import write_bytes
    from cluster.runs import open_run
    from gencomp.evaluation.networks import to_file

    opened = open_run(run, checkpoint)
    opened.final_checkpoint()
    network = opened.system().evaluation_network()
    if network is None:
        recipe = opened.recipe()
        raise InputError(
            f"run {run} ({recipe.system}/{recipe.stage}) has no network that judges images"
        )
    if not file.parent.is_dir():
        raise InputError(f"{file} cannot be written: there is no folder {file.parent}")
    content = to_file(network)
    if not file.exists():
        write_bytes(file, content)
    elif not file.is_file() or file.read_bytes() != content:
        raise InputError(f"{file} exists already and holds something else: choose another name")
    print(f"{file}: SHA-256 {hashlib.sha256(content).hexdigest()}")
