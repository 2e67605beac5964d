"""The phases of a stage, which alternate by the batch: those of the critic and of the codec."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from gencomp.collectives import global_means
from gencomp.draws import Draws
from gencomp.losses import at_least_float32, gradient_penalties, squared_errors
from gencomp.system import Batch, Phase, PhaseLoss, Progress

# Maps (networks, images [B, C, H, W] on [0, 1], draws) to the decoder's input [B, K].
Channel = Callable[[nn.ModuleDict, Tensor, Draws], Tensor]
# Maps uint8 images [B, 3, H, W] to images [B, C, H, W] on [0, 1].
ToUnit = Callable[[Tensor], Tensor]


def is_decoder_batch(index: int, critic_steps: int) -> bool:
    """Whether a batch is for the decoder and not for the critic.

    In each cycle of 1 + critic_steps batches the second one is, so the critic comes first.

    Args:
        index: the number of the batch in its epoch, from 0.
        critic_steps: the number of batches for the critic in a cycle.
    """
    return index % (1 + critic_steps) == 1


def batch_in_epoch(progress: Progress, batch_size: int) -> int:
    """The number of the next batch in its epoch, from 0.

    Batches of the endless training stream may begin inside an epoch's first batch; they belong to
    the epoch in which they begin.
    """
    return progress.samples % progress.epoch_length // batch_size


def start_weight(epoch: float, first: float, epochs: int) -> float:
    """The weight that falls in equal steps, an epoch each, from `first` to 0 at `epochs`."""
    return first * (epochs - min(math.floor(epoch), epochs)) / epochs


class CriticPhase(Phase):
    """The objective mean D(x̂) − mean D(x) + λ_gp·GP over D, where x̂ reconstructs that same x.

    Encoder and decoder run in training mode without a graph, so their running statistics advance in
    these batches too, as in the authors' code.

    Args:
        nets: the networks of the channel, `decoder` and `critic`.
        evaluates: the names of those in evaluation mode.
        channel: the map from images to the decoder's input.
        to_unit: the map from uint8 images to those on [0, 1].
        penalty_weight: λ_gp.
    """

    second_order = True

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        evaluates: Sequence[str],
        channel: Channel,
        to_unit: ToUnit,
        penalty_weight: float,
    ) -> None:
        super().__init__(nets, trains=("critic",), evaluates=evaluates)
        self.channel, self.to_unit, self.penalty_weight = channel, to_unit, penalty_weight

    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        critic = self.networks["critic"]
        x_BCHW = self.to_unit(batch.images_BCHW)
        with torch.no_grad():
            fakes_BCHW = self.networks["decoder"](self.channel(self.networks, x_BCHW, draws))
        mix_B = draws.uniform("penalty", 0, 1).to(x_BCHW.dtype)
        penalties_B = gradient_penalties(critic, x_BCHW, fakes_BCHW, mix_B, "per_image")
        real_B, fake_B = (scores_B(critic, images) for images in (x_BCHW, fakes_BCHW))
        real, fake, penalty = global_means(real_B, fake_B, penalties_B)
        terms = {"critic_gap": real.detach() - fake.detach(), "penalty": penalty.detach()}
        return PhaseLoss(fake - real + self.penalty_weight * penalty, terms)


class CodecPhase(Phase):
    """The objective MSE(x, x̂) − λ·mean D(x̂) over the decoder, and over an encoder that learns.

    Args:
        nets: the networks of the channel, `decoder` and `critic`.
        trains: the names of the networks that it updates.
        evaluates: the names of those in evaluation mode.
        channel: the map from images to the decoder's input.
        to_unit: the map from uint8 images to those on [0, 1].
        perception_weight: maps the progress to λ.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        trains: Sequence[str],
        evaluates: Sequence[str],
        channel: Channel,
        to_unit: ToUnit,
        perception_weight: Callable[[Progress], float],
    ) -> None:
        super().__init__(nets, trains, evaluates)
        self.channel, self.to_unit, self.perception_weight = channel, to_unit, perception_weight

    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        x_BCHW = self.to_unit(batch.images_BCHW)
        x_hat_BCHW = self.networks["decoder"](self.channel(self.networks, x_BCHW, draws))
        weight = self.perception_weight(progress)
        errors_B = squared_errors(x_hat_BCHW, x_BCHW)
        scored_B = scores_B(self.networks["critic"], x_hat_BCHW)
        error, score = global_means(errors_B, scored_B)
        terms = {
            "mse_unit": error.detach(),
            "fake_score": score.detach(),
            "perception_weight": error.new_full((), weight),
        }
        return PhaseLoss(error - weight * score, terms)


def scores_B(critic: nn.Module, x_BCHW: Tensor) -> Tensor:
    """The critic's score of each image, [n], in float32 at least."""
    return at_least_float32(critic(x_BCHW)[:, 0])
