"""The parts that finished blocks leave behind, and how they are read again.

A part of n items holds these tensors:

    <metric>         float64 [n], the values of a metric
    features/<set>   float32 [n, D], the features of one of the sets images, reconstructions, rate0
                     and samples; the set latents holds the latent of each image, and the set prior
                     as many samples of the prior; the sets image_slices and made_slices hold the
                     projections of images and reconstructions on random directions. Those of
                     patches have a row for each patch instead, the patches of an image together
    patches          int64 [n], the number of patches of each item, where there are patches
    segmentation/<set>  int64 [n, 3, K], what `gencomp.evaluation.segmentation` counts in images and
                     reconstructions
    pixels/<what>    int64 [3, H, W], sums for the rate-0 identity

The features are stored, and not their sums of products: if a block has fewer than D images, the
features take less room, and the kernel distance and the intervals need them. Sums are formed block
by block when the parts are read, so no more than one block, or one subset of the kernel distance,
is ever in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors
from torch import Tensor

from cluster.evaluations import parts
from cluster.evaluations.metrics.plan import Evaluation
from gencomp.errors import InputError
from gencomp.evaluation.frechet import FeatureSums

FeatureSet = Literal[
    "images",
    "reconstructions",
    "rate0",
    "samples",
    "latents",
    "prior",
    "image_slices",
    "made_slices",
]
OF_PATCHES: tuple[FeatureSet, ...] = ("images", "reconstructions", "rate0", "samples")
PATCHES = "patches"
PIXEL_TOTAL, PIXEL_SQUARES, DRAWN_TOTAL = "pixels/total", "pixels/squares", "pixels/drawn"


def segmentation_name(which: str) -> str:
    return f"segmentation/{which}"


def feature_name(which: FeatureSet) -> str:
    return f"features/{which}"


def write_part(evaluation: Evaluation, block: int, tensors: dict[str, Tensor]) -> None:
    """Write the part of a finished block, whole or not at all."""
    parts.write(evaluation.part(block), tensors, evaluation.plan.hash, block)


def read_part(evaluation: Evaluation, block: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The content and the metadata of a part.

    Raises:
        InputError: the file is damaged or belongs to another plan or block.
    """
    path = evaluation.part(block)
    tensors, metadata = parts.read(path, evaluation.plan.hash, block)
    items = len(evaluation.plan.blocks[block].items)
    patched = {feature_name(which) for which in OF_PATCHES} if PATCHES in tensors else set()
    for name, tensor in tensors.items():
        expected = int(tensors[PATCHES].sum()) if name in patched else items
        if not name.startswith("pixels/") and len(tensor) != expected:
            raise InputError(
                f"{path} holds {len(tensor)} values of {name}, not {expected}; {parts.MEND}"
            )
    return tensors, metadata


@dataclass(frozen=True)
class StoredFeatures:
    """The features of one set, in the parts that hold them.

    Attributes:
        which: the name of the set.
        files: the parts in the order of their blocks.
        rows: for each part, the number of rows of each of its items: of its patches, or 1.
    """

    which: FeatureSet
    files: Sequence[Path]
    rows: Sequence[np.ndarray]

    def __len__(self) -> int:
        """The number of items."""
        return sum(map(len, self.rows))

    @cached_property
    def rows_N(self) -> np.ndarray:
        """The number of rows of each item."""
        return np.concatenate(self.rows)

    def blocks(self) -> Iterator[Tensor]:
        """The features of each part in turn, float32 [n, D]."""
        for path in self.files:
            with safetensors.safe_open(path, "pt") as file:
                yield file.get_tensor(feature_name(self.which))

    def sums(self) -> FeatureSums:
        """The sufficient statistics over all items, merged in the order of the blocks."""
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
        """The features of some items, float32 [the number of their rows, D].

        Args:
            items: the places of these items among all items, in increasing order.
        """
        found, begin = [], 0
        for features_PD, rows_N in zip(self.blocks(), self.rows, strict=True):
            wanted_N = np.zeros(len(rows_N), bool)
            wanted_N[items[(items >= begin) & (items < begin + len(rows_N))] - begin] = True
            found.append(features_PD.numpy()[np.repeat(wanted_N, rows_N)])
            begin += len(rows_N)
        return np.concatenate(found)

    def by_item(self, values_P: np.ndarray) -> np.ndarray:
        """Values of rows whose mean is the same over items, added up for each, float64 [N]."""
        begins_N = np.cumsum(self.rows_N) - self.rows_N
        sums_N: np.ndarray = np.add.reduceat(values_P, begins_N)
        return sums_N / self.rows_N.mean()
