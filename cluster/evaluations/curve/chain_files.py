"""The files of chains that are being worked on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from cluster import tensor_files
from gencomp.errors import InputError

log = logging.getLogger(__name__)


def remove(path: Path) -> None:
    """Remove a file, and the temporary files that killed attempts at writing it have left."""
    path.unlink(missing_ok=True)
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink(missing_ok=True)


def load_chains(path: Path, expected: Mapping[str, str], what: str) -> dict[str, Tensor] | None:
    """The tensors in a file of chains; None if there is no file, or it cannot be trusted.

    Args:
        path: the file.
        expected: the protocol that the file must have.
        what: the work that starts anew if the file cannot be trusted, for messages.
    """
    if not path.exists():
        return None
    try:
        tensors, metadata = tensor_files.read(path)
    except InputError as error:
        log.warning("%s; %s starts anew", error, what)
        return None
    if metadata != expected:
        log.warning("%s belongs to another evaluation; %s starts anew", path, what)
        return None
    return tensors
