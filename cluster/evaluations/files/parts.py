"""The part that a finished block of files leaves behind: float64 values, one for each picture."""

from __future__ import annotations

from torch import Tensor

from cluster.evaluations import parts
from cluster.evaluations.files.plan import Evaluation
from gencomp.errors import InputError

VALUES = (
    "pixels",
    "code_bits",
    "file_bits",
    "nominal_bits",  # not a number for a method without a fixed length
    "mse",
    "ms_ssim",  # not a number for pictures that are too small
    "encode_seconds",
    "decode_seconds",
)


def write_part(evaluation: Evaluation, block: int, values: dict[str, Tensor]) -> None:
    """Write the part of a finished block, whole or not at all."""
    parts.write(evaluation.part(block), values, evaluation.plan.hash, block)


def read_part(evaluation: Evaluation, block: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The values and the metadata of a part.

    Raises:
        InputError: the file is damaged or belongs to another plan or block.
    """
    path = evaluation.part(block)
    values, metadata = parts.read(path, evaluation.plan.hash, block)
    items = len(evaluation.plan.blocks[block].items)
    if set(values) != set(VALUES) or any(len(value) != items for value in values.values()):
        raise InputError(f"{path} does not hold the values of {items} pictures; {parts.MEND}")
    return values, metadata
