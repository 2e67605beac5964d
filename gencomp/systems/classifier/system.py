"""The system `classifier`, with its objective, its evaluation and its feature network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from gencomp.collectives import global_means
from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.losses import at_least_float32
from gencomp.networks.classifier import FeatureNetwork, FeatureTrunk
from gencomp.sums import Sums
from gencomp.system import Batch, Phase, PhaseLoss, Progress, Supply
from gencomp.systems.classifier.recipe import ClassifierRecipe
from gencomp.systems.common import pixels
from gencomp.systems.common.evaluation_networks import for_file
from gencomp.systems.common.objectives import Objective, SystemOfObjectives


class Seen(NamedTuple):
    """What the networks see in a batch.

    Attributes:
        right_B: whether the most probable class of an image is its label, bool.
        cross_entropy_B: the cross-entropy of its label, −log p(label), in nats.
    """

    right_B: Tensor
    cross_entropy_B: Tensor


def logits(networks: nn.ModuleDict, images_BCHW: Tensor) -> Tensor:
    """The logits of the classes for each image, [B, classes], in float32 at least."""
    features_BD = networks["trunk"](pixels.to_signed(images_BCHW))
    return at_least_float32(networks["head"](features_BD))


def classified(networks: nn.ModuleDict, batch: Batch, classes: int) -> Seen:
    """The classes that the networks see in a batch, held against the labels.

    Raises:
        InputError: an image has no label, or one beyond the classes.
    """
    labels_B = batch.labels_B
    if bad := labels_B[(labels_B < 0) | (labels_B >= classes)].tolist():
        what = "no label" if bad[0] < 0 else f"the label {bad[0]}"
        raise InputError(
            f"an image has {what}, but a classifier of {classes} classes needs labels from 0 to"
            f" {classes - 1}"
        )
    logits_BL = logits(networks, batch.images_BCHW)
    cross_entropy_B = F.cross_entropy(logits_BL, labels_B, reduction="none")
    return Seen(logits_BL.argmax(1) == labels_B, cross_entropy_B)


class CrossEntropyPhase(Phase):
    """The mean cross-entropy of the labels over the global batch."""

    def __init__(self, networks: Mapping[str, nn.Module], classes: int) -> None:
        super().__init__(networks, trains=tuple(networks))
        self.classes = classes

    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        seen = classified(self.networks, batch, self.classes)
        right_B = seen.right_B.to(seen.cross_entropy_B.dtype)
        loss, accuracy = global_means(seen.cross_entropy_B, right_B)
        return PhaseLoss(loss, {"accuracy": accuracy.detach()})


class Classifier(SystemOfObjectives):
    """A system of a trunk, which gives features, and a head, which gives the classes' logits."""

    def __init__(self, recipe: ClassifierRecipe) -> None:
        sizes = recipe.networks
        self.classes = sizes.classes
        nets = {
            "trunk": FeatureTrunk(sizes.widths),
            "head": nn.Linear(sizes.widths[-1], sizes.classes),
        }
        phase = CrossEntropyPhase(nets, sizes.classes)
        super().__init__(nets, {"classes": Objective(phase, recipe.optimizer)})

    def finalise(self, supply: Supply) -> None:
        """Leave the networks as they are, since they have no batch statistics."""

    def evaluate(self, batch: Batch, draws: Draws) -> Sums:
        seen = classified(self.networks, batch, self.classes)
        sums = Sums()
        sums.add("accuracy", seen.right_B)
        sums.add("cross_entropy", seen.cross_entropy_B)
        return sums

    def summary(self, sums: Sums) -> dict[str, float]:
        """The fraction of images whose class is their label, and the cross-entropy in nats."""
        return {
            "accuracy": sums.mean("accuracy"),
            "accuracy_standard_error": sums.standard_error("accuracy"),
            "cross_entropy": sums.mean("cross_entropy"),
            "images": sums.count("accuracy"),
        }

    def pictures(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """The images in the order of the classes that are seen in them."""
        class_B = logits(self.networks, batch.images_BCHW).argmax(1)
        return {"by class": batch.images_BCHW[class_B.argsort(stable=True)]}

    def evaluation_network(self) -> nn.Module:
        """The layers before the last one, a copy in evaluation mode."""
        trunk = self.networks["trunk"]
        assert isinstance(trunk, FeatureTrunk)
        return FeatureNetwork(for_file(trunk)).eval()
