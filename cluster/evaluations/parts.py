"""Parts made of tensors, which finished blocks leave behind. Each part names its plan."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from cluster import provenance, tensor_files
from gencomp.errors import InputError

MEND = "remove it and run the evaluation again"


def write(path: Path, tensors: dict[str, Tensor], plan: str, block: int) -> None:
    """Write the part of a finished block, whole or not at all.

    Args:
        path: the file.
        tensors: the content.
        plan: the hash of the plan.
        block: the number of the block.
    """
    metadata = {
        "plan": plan,
        "block": str(block),
        **provenance.of_part(),
    }
    tensor_files.write(path, tensors, metadata)
    for leftover in path.parent.glob(f".{path.name}.*"):  # killed attempts have left these files
        leftover.unlink(missing_ok=True)


def read(path: Path, plan: str, block: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The content and the metadata of a part.

    Raises:
        InputError: the file is damaged or belongs to another plan or block.
    """
    try:
        tensors, metadata = tensor_files.read(path)
    except InputError as error:
        raise InputError(f"{error}; {MEND}") from None
    for key, wanted in (("plan", plan), ("block", str(block))):
        if metadata.get(key) != wanted:
            raise InputError(
                f"{path} belongs to another evaluation: its {key} is {metadata.get(key)}, not "
                f"{wanted}; {MEND}"
            )
    return tensors, metadata
