"""What a finished block leaves behind, and how the parts are read again.

Tensors of a part, n items: float64 [n] values under the names of metrics; `features/<set>`, float32
[n, D], of the sets images, reconstructions, rate0 and samples, and of each image its latent and a
sample of the prior; `pixels/<what>`, int64 [3, H, W]
sums for the rate-0 identity.

Features are kept, and not their sums of products: below D images a block they take less room, and
the kernel distance and the intervals need them. Sums are formed block by block when they are read,
so no more than one block, or one subset of the kernel distance, is ever in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors
import torch
from torch import Tensor

import gencomp
from cluster import tensor_files
from cluster.evaluations.metrics.plan import Evaluation
from gencomp.errors import InputError
from gencomp.evaluation.frechet import FeatureSums

FeatureSet = Literal["images", "reconstructions", "rate0", "samples", "latents", "prior"]
PIXEL_TOTAL, PIXEL_SQUARES, DRAWN_TOTAL = "pixels/total", "pixels/squares", "pixels/drawn"


def feature_name(which: FeatureSet) -> str:
    return f"features/{which}"


def write_part(evaluation: Evaluation, block: int, tensors: dict[str, Tensor]) -> None:
    """The part of a finished block, whole or not at all."""
    path = evaluation.part(block)
    metadata = {
        "plan": evaluation.plan.hash,
        "block": str(block),
        "gencomp": gencomp.__version__,
        "torch": torch.__version__,
    }
    tensor_files.write(path, tensors, metadata)
    for leftover in path.parent.glob(f".{path.name}.*"):  # of attempts that were killed
        leftover.unlink(missing_ok=True)


def read_part(evaluation: Evaluation, block: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A part and its metadata.

    Raises:
        InputError: the file is damaged or belongs to another protocol or block.
    """
    path = evaluation.part(block)
    mend = "remove it and run the evaluation again"
    try:
        tensors, metadata = tensor_files.read(path)
    except InputError as error:
        raise InputError(f"{error}; {mend}") from None
    for key, wanted in (("plan", evaluation.plan.hash), ("block", str(block))):
        if metadata.get(key) != wanted:
            raise InputError(
                f"{path} belongs to another evaluation: its {key} is {metadata.get(key)}, not "
                f"{wanted}; {mend}"
            )
    items = len(evaluation.plan.blocks[block].items)
    for name, tensor in tensors.items():
        if not name.startswith("pixels/") and len(tensor) != items:
            raise InputError(f"{path} holds {len(tensor)} values of {name}, not {items}; {mend}")
    return tensors, metadata


@dataclass(frozen=True)
class StoredFeatures:
    """The features of one set, in the parts that hold them.

    Attributes:
        which: the set.
        files: the parts in the order of their blocks.
        lengths: items of each.
    """

    which: FeatureSet
    files: Sequence[Path]
    lengths: Sequence[int]

    def __len__(self) -> int:
        return sum(self.lengths)

    def blocks(self) -> Iterator[Tensor]:
        """float32 [n, D], one part after the other."""
        for path in self.files:
            with safetensors.safe_open(path, "pt") as file:
                yield file.get_tensor(feature_name(self.which))

    def sums(self) -> FeatureSums:
        """Sufficient statistics over all items, merged in the order of the blocks."""
        merged: FeatureSums | None = None
        for features_ND in self.blocks():
            block = FeatureSums(features_ND.shape[1])
            block.add(features_ND)
            if merged is None:
                merged = block
            else:
                merged.merge(block)
        assert merged is not None
        return merged

    def at(self, items: np.ndarray) -> np.ndarray:
        """float32 [len(items), D].

        Args:
            items: increasing places among all items.
        """
        found, begin = [], 0
        for features_ND, length in zip(self.blocks(), self.lengths, strict=True):
            here = items[(items >= begin) & (items < begin + length)] - begin
            found.append(features_ND.numpy()[here])
            begin += length
        return np.concatenate(found)
