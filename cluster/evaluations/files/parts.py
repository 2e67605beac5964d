"""The part that a finished block of files leaves behind, float64.

A block of single files has one value for each picture, and a joint container has one of each. The
bits of an engineered lossless codec stand beside both, as png_bits and so on; those of the parts of
single files, where there are several, stand beside them as labels_bits and so on.
"""

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
# What the picture's file would be without any loss of coding, for a method that can tell.
IDEAL_VALUES = ("ideal_bits", "ideal_mse", "ideal_ms_ssim")
JOINT_VALUES = ("pictures", "pixels", "code_bits", "file_bits")


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
    kind, items = evaluation.plan.blocks[block]
    engineered = tuple(f"{name}_bits" for name in evaluation.plan.settings.lossless)
    of_parts = tuple(f"{part}_bits" for part in evaluation.plan.parts)
    of_pictures = VALUES + of_parts + IDEAL_VALUES * evaluation.plan.ideal
    names, length = (of_pictures, len(items)) if kind == "single" else (JOINT_VALUES, 1)
    names += engineered
    if set(values) != set(names) or any(len(value) != length for value in values.values()):
        raise InputError(f"{path} does not hold the values of {len(items)} pictures; {parts.MEND}")
    return values, metadata
