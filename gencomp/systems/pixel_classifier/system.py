"""The system `pixel_classifier`, with its objective, its evaluation and the network for a file."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencomp.collectives import global_means
from gencomp.draws import Draws
from gencomp.evaluation import segmentation
from gencomp.losses import at_least_float32
from gencomp.networks.pixel_classifier import PixelNetwork, SegmentationNetwork
from gencomp.sums import Sums
from gencomp.system import Batch, Phase, PhaseLoss, Progress, Supply
from gencomp.systems.common import pixels
from gencomp.systems.common.evaluation_networks import for_file
from gencomp.systems.common.objectives import Objective, SystemOfObjectives
from gencomp.systems.pixel_classifier.recipe import PixelClassifierRecipe


class Seen(NamedTuple):
    """What the network sees in a batch.

    Attributes:
        classes_BHW: the most probable class of each pixel.
        cross_entropy_B: the cross-entropy of the labels, in nats, averaged over the pixels of each
            image whose label is a class; 0 for an image without such pixels.
        right_B: the fraction of these pixels whose most probable class is their label.
    """

    classes_BHW: Tensor
    cross_entropy_B: Tensor
    right_B: Tensor


def seen_in(network: nn.Module, images_BCHW: Tensor, labels_BHW: Tensor, classes: int) -> Seen:
    """The classes that a network sees in images, held against their label maps."""
    logits_BLHW = at_least_float32(network(pixels.to_signed(images_BCHW)))
    labels_BHW = labels_BHW.long()
    counts_BHW = (labels_BHW >= 0) & (labels_BHW < classes)
    wanted_BHW = labels_BHW.where(counts_BHW, -1)
    nats_BHW = F.cross_entropy(logits_BLHW, wanted_BHW, ignore_index=-1, reduction="none")
    classes_BHW = logits_BLHW.argmax(1)
    pixels_B = counts_BHW.sum((1, 2)).clamp(min=1)
    right_BHW = (classes_BHW == labels_BHW) & counts_BHW
    return Seen(
        classes_BHW, nats_BHW.sum((1, 2)) / pixels_B, right_BHW.sum((1, 2)).to(nats_BHW) / pixels_B
    )


class CrossEntropyPhase(Phase):
    """The mean cross-entropy of the labels over the images of the global batch."""

    def __init__(self, network: PixelNetwork, label_map: str, classes: int) -> None:
        super().__init__({"pixels": network}, trains=("pixels",))
        self.label_map = label_map
        self.classes = classes

    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        labels_BHW = batch.maps[self.label_map]
        seen = seen_in(self.networks["pixels"], batch.images_BCHW, labels_BHW, self.classes)
        loss, accuracy = global_means(seen.cross_entropy_B, seen.right_B)
        return PhaseLoss(loss, {"accuracy": accuracy.detach()})


class PixelClassifier(SystemOfObjectives):
    """A system of one network, which gives the logits of the classes of each pixel."""

    def __init__(self, recipe: PixelClassifierRecipe) -> None:
        self.classes = recipe.networks.classes
        self.label_map = recipe.label_map
        network = PixelNetwork(recipe.networks.widths, self.classes)
        phase = CrossEntropyPhase(network, self.label_map, self.classes)
        super().__init__({"pixels": network}, {"classes": Objective(phase, recipe.optimizer)})

    def finalise(self, supply: Supply) -> None:
        """Leave the network as it is, since it has no batch statistics."""

    def evaluate(self, batch: Batch, draws: Draws) -> Sums:
        labels_BHW = batch.maps[self.label_map]
        seen = seen_in(self.networks["pixels"], batch.images_BCHW, labels_BHW, self.classes)
        sums = Sums()
        sums.add("cross_entropy", seen.cross_entropy_B)
        sums.add("accuracy", seen.right_B)
        counts_B3K = segmentation.counts(seen.classes_BHW, labels_BHW, self.classes)
        for number in range(self.classes):
            sums.add(f"intersection {number}", counts_B3K[:, segmentation.INTERSECTION, number])
            sums.add(f"union {number}", counts_B3K[:, segmentation.UNION, number])
            sums.add(f"labelled {number}", counts_B3K[:, segmentation.LABELLED, number])
        return sums

    def summary(self, sums: Sums) -> dict[str, float]:
        """The mean intersection over union of the labelled classes, with accuracy and nats."""
        there = [k for k in range(self.classes) if sums.mean(f"labelled {k}") > 0]
        values = [sums.mean(f"intersection {k}") / sums.mean(f"union {k}") for k in there]
        return {
            "miou": sum(values) / len(values) if values else float("nan"),
            "accuracy": sums.mean("accuracy"),
            "cross_entropy": sums.mean("cross_entropy"),
            "images": sums.count("accuracy"),
        }

    def pictures(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """The images, their label maps, and the classes that are seen, as shades of grey."""
        labels_BHW = batch.maps[self.label_map]
        seen = seen_in(self.networks["pixels"], batch.images_BCHW, labels_BHW, self.classes)
        return {
            "images": batch.images_BCHW,
            "labels": self._shades(labels_BHW),
            "seen": self._shades(seen.classes_BHW),
        }

    def evaluation_network(self) -> nn.Module:
        """The network for a file, a copy in evaluation mode."""
        network = self.networks["pixels"]
        assert isinstance(network, PixelNetwork)
        return SegmentationNetwork(for_file(network)).eval()

    def _shades(self, classes_BHW: Tensor) -> Tensor:
        """Class 0 in black to the last one in white, uint8 [B, 3, H, W]; no class is white too."""
        shade_BHW = classes_BHW.long().clamp(0, self.classes - 1) * 255 // (self.classes - 1)
        return shade_BHW.to(torch.uint8)[:, None].expand(-1, 3, -1, -1)
