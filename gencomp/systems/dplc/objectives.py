"""The phases, which are the objectives that the optimizer steps of a stage minimise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gencomp.collectives import gather_columns, global_mean, global_means
from gencomp.draws import Draws
from gencomp.losses import (
    at_least_float32,
    gradient_penalties,
    logistic_losses,
    prior_log_density,
    root_mean,
    squared_errors,
    whole_mmd,
)
from gencomp.networks.batch_norm import batch_statistics
from gencomp.system import Batch, Phase, PhaseLoss, Progress
from gencomp.systems.common import pixels
from gencomp.systems.dplc import parts
from gencomp.systems.dplc.recipe import (
    CriticSection,
    LatentDiscriminatorSection,
    LatentSource,
)

Terms = dict[str, Tensor]


# A penalty has two parts, so that one collective call between them serves all terms of a loss.
# `rows` gives the contributions of this rank's images, [n] or [n, k]. `value` turns the rows of the
# global batch into the weighted term and the terms to record.


@dataclass(frozen=True)
class MmdPenalty:
    """The penalty λ·MMD(z, prior)."""

    weight: float
    prior: parts.Prior

    def rows(self, nets: nn.ModuleDict, z_BM11: Tensor) -> Tensor:
        return at_least_float32(z_BM11).flatten(1)

    def value(self, rows_N: Tensor, draws: Draws) -> tuple[Tensor, Terms]:
        prior_NM = self.prior.sample_whole(draws, rows_N.dtype).flatten(1)
        value = whole_mmd(rows_N, prior_NM, self.prior.variance)
        return self.weight * value, {"mmd": value.detach()}


@dataclass(frozen=True)
class DiscriminatorPenalty:
    """The penalty λ times the cross-entropy of Dz(z) for the class "drawn from the prior"."""

    weight: float
    prior: parts.Prior
    avb_trick: bool

    def rows(self, nets: nn.ModuleDict, z_BM11: Tensor) -> Tensor:
        return logistic_losses(self.logits_B(nets, z_BM11), positive=True)

    def value(self, rows_N: Tensor, draws: Draws) -> tuple[Tensor, Terms]:
        value = rows_N.mean()
        return self.weight * value, {"latent_adversarial": value.detach()}

    def logits_B(self, nets: nn.ModuleDict, z_BM11: Tensor) -> Tensor:
        """The logits of the class "drawn from the prior".

        The best logit is log p(z) − log q(z). With the trick of adversarial variational Bayes
        (Mescheder et al., ICML 2017), log p(z) is added in closed form and Dz learns the rest.
        """
        logits_B = nets["latent_discriminator"](z_BM11)
        if self.avb_trick:
            logits_B = logits_B + prior_log_density(z_BM11, self.prior.variance)
        return logits_B


LatentPenalty = MmdPenalty | DiscriminatorPenalty


def latent_penalty(
    mmd_weight: float, discriminator: LatentDiscriminatorSection, prior: parts.Prior
) -> LatentPenalty:
    """The latent penalty that a recipe asks for."""
    if discriminator.weight > 0:
        return DiscriminatorPenalty(discriminator.weight, prior, discriminator.avb_trick)
    return MmdPenalty(mmd_weight, prior)


@dataclass(frozen=True)
class Adversary:
    """The adversarial term −λ_a·mean f(G(latents)).

    Attributes:
        weight: the weight λ_a.
        source: the source of the latents.
        prior: the prior of the latents, for the sources `interp` and `prior`; None for `enc`.
        reaches_encoder: whether the term's gradient flows through the latents into the encoder.
    """

    weight: float
    source: LatentSource
    prior: parts.Prior | None
    reaches_encoder: bool


class AutoencoderPhase(Phase):
    """The objective w·RMSE + latent penalty + adversarial term, over an encoder and G.

    A frozen G is not trained; it runs in evaluation mode, or by the statistics of its batch without
    moving its own.

    Args:
        nets: the encoder's networks, `generator` (G), and `latent_discriminator` and `critic` if
            they are used.
        trains: the names of the networks that the phase updates.
        encode: the map from images to latents.
        penalty: the penalty of the latents; None leaves them free.
        adversary: the adversarial term; None if there is no critic.
        reconstruction_weight: the weight w.
        frozen_from_batch: whether a frozen G normalises by its batch.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        trains: Sequence[str],
        encode: parts.Latents,
        penalty: LatentPenalty | None = None,
        adversary: Adversary | None = None,
        reconstruction_weight: float = 1.0,
        frozen_from_batch: bool = False,
    ) -> None:
        frozen = () if "generator" in trains else ("generator",)
        super().__init__(nets, trains, evaluates=frozen)
        self.encode, self.penalty, self.adversary = encode, penalty, adversary
        self.reconstruction_weight = reconstruction_weight
        self.from_batch = bool(frozen) and frozen_from_batch

    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        x_BCHW = pixels.to_signed(batch.images_BCHW)
        z_BM11 = self.encode(self.networks, x_BCHW, draws)
        with self._generator_statistics():
            x_hat_BCHW = self.networks["generator"](z_BM11)
        columns = {"error": squared_errors(x_hat_BCHW, x_BCHW)}
        if self.penalty is not None:
            columns["latent"] = self.penalty.rows(self.networks, z_BM11)
        if self.adversary is not None:
            fakes_BCHW = self._fakes(self.adversary, x_BCHW, z_BM11, x_hat_BCHW, draws)
            columns["score"] = scores_B(self.networks["critic"], fakes_BCHW)
        gathered = gather_columns(draws.batch_size, *columns.values())
        return self._loss(dict(zip(columns, gathered, strict=True)), draws)

    def _loss(self, rows: dict[str, Tensor], draws: Draws) -> PhaseLoss:
        """The loss, from the contributions of the N images of the global batch to each term."""
        error = root_mean(rows["error"])
        loss, terms = self.reconstruction_weight * error, {"rmse": error.detach()}
        if self.penalty is not None:
            value, named = self.penalty.value(rows["latent"], draws)
            loss, terms = loss + value, terms | named
        if self.adversary is not None:
            score = rows["score"].mean()
            loss = loss - self.adversary.weight * score
            terms["fake_score"] = score.detach()
        return PhaseLoss(loss, terms)

    def _generator_statistics(self) -> AbstractContextManager[None]:
        if self.from_batch:
            return batch_statistics(self.networks["generator"])
        return nullcontext()

    def _fakes(
        self,
        adversary: Adversary,
        x_BCHW: Tensor,
        z_BM11: Tensor,
        x_hat_BCHW: Tensor,
        draws: Draws,
    ) -> Tensor:
        if adversary.source == "enc" and adversary.reaches_encoder:
            return x_hat_BCHW
        seen_BM11 = z_BM11 if adversary.reaches_encoder else z_BM11.detach()
        latents = parts.chosen_latent(adversary.source, lambda *_: seen_BM11, adversary.prior)
        # The same latents need a second pass, since the first one's gradient reaches the encoder.
        with batch_statistics(self.networks["generator"]):
            return self.networks["generator"](latents(self.networks, x_BCHW, draws))


class SamplerPhase(Phase):
    """The objective −λ_a·mean f(G(z)) over G, with z from the prior: the generator's of a WGAN."""

    def __init__(self, nets: Mapping[str, nn.Module], weight: float, prior: parts.Prior) -> None:
        super().__init__(nets, trains=("generator",))
        self.weight, self.latents = weight, parts.prior_latent(prior)

    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        x_BCHW = pixels.to_signed(batch.images_BCHW)
        fakes_BCHW = self.networks["generator"](self.latents(self.networks, x_BCHW, draws))
        score = global_mean(scores_B(self.networks["critic"], fakes_BCHW))
        return PhaseLoss(-self.weight * score, {"fake_score": score.detach()})


class CriticPhase(Phase):
    """The objective mean f(fakes) − mean f(x) + λ_gp·GP over f, with fakes G(latents).

    The encoder and G run without a graph, by the statistics of their batches, and do not change.
    """

    second_order = True

    def __init__(
        self, nets: Mapping[str, nn.Module], latents: parts.Latents, settings: CriticSection
    ) -> None:
        super().__init__(nets, trains=("critic",))
        self.latents, self.settings = latents, settings

    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        critic = self.networks["critic"]
        x_BCHW = pixels.to_signed(batch.images_BCHW)
        with torch.no_grad(), batch_statistics(self.networks):
            z_BM11 = self.latents(self.networks, x_BCHW, draws)
            fakes_BCHW = self.networks["generator"](z_BM11)
        mix_B = draws.uniform("penalty", 0, 1).to(x_BCHW.dtype)
        norm = self.settings.penalty_norm
        penalties_B = gradient_penalties(critic, x_BCHW, fakes_BCHW, mix_B, norm)
        # Both are scored one after the other: on a CPU, a batch of both would not fit the cache.
        real_B, fake_B = (scores_B(critic, images) for images in (x_BCHW, fakes_BCHW))
        real, fake, penalty = global_means(real_B, fake_B, penalties_B)
        loss = fake - real + self.settings.penalty_weight * penalty
        # `gap` estimates the Wasserstein distance, up to the critic's Lipschitz constant.
        terms = {"gap": real.detach() - fake.detach(), "penalty": penalty.detach()}
        return PhaseLoss(loss, terms)


class LatentDiscriminatorPhase(Phase):
    """The cross-entropy of Dz, which tells samples of the prior from the encoder's latents.

    The encoder runs without a graph and does not change.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        encode: parts.Latents,
        penalty: DiscriminatorPenalty,
    ) -> None:
        super().__init__(nets, trains=("latent_discriminator",))
        self.encode, self.penalty = encode, penalty

    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        x_BCHW = pixels.to_signed(batch.images_BCHW)
        with torch.no_grad(), batch_statistics(self.networks):
            z_BM11 = self.encode(self.networks, x_BCHW, draws)
        prior_BM11 = self.penalty.prior.sample(draws, z_BM11.dtype)
        real_B = logistic_losses(self.penalty.logits_B(self.networks, prior_BM11), positive=True)
        fake_B = logistic_losses(self.penalty.logits_B(self.networks, z_BM11), positive=False)
        real, fake = global_means(real_B, fake_B)
        return PhaseLoss(real + fake, {"real": real.detach(), "fake": fake.detach()})


def scores_B(critic: nn.Module, x_BCHW: Tensor) -> Tensor:
    """The critic's score of each image, [n], in float32 at least."""
    return at_least_float32(critic(x_BCHW)[:, 0])
