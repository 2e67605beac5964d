"""The phases: what each optimiser step of a stage minimises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gencomp.collectives import global_mean
from gencomp.draws import Draws
from gencomp.losses import gradient_penalty, logistic_loss, mmd, prior_log_density, rmse
from gencomp.networks.batch_norm import batch_statistics
from gencomp.system import Batch, Phase, PhaseLoss, Progress
from gencomp.systems.dplc import parts
from gencomp.systems.dplc.recipe import (
    CriticSection,
    LatentDiscriminatorSection,
    LatentSource,
)

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class MmdPenalty:
    """λ·MMD(z, prior)."""

    weight: float
    prior: parts.Prior

    def __call__(self, nets: nn.ModuleDict, z_BM11: Tensor, draws: Draws) -> tuple[Tensor, Terms]:
        prior_BM11 = self.prior.sample(draws, z_BM11.dtype)
        value = mmd(z_BM11, prior_BM11, self.prior.variance)
        return self.weight * value, {"mmd": value.detach()}


@dataclass(frozen=True)
class DiscriminatorPenalty:
    """λ·cross-entropy of Dz(z) against "drawn from the prior"."""

    weight: float
    prior: parts.Prior
    avb_trick: bool

    def __call__(self, nets: nn.ModuleDict, z_BM11: Tensor, draws: Draws) -> tuple[Tensor, Terms]:
        value = logistic_loss(self.logits_B(nets, z_BM11), positive=True)
        return self.weight * value, {"latent_adversarial": value.detach()}

    def logits_B(self, nets: nn.ModuleDict, z_BM11: Tensor) -> Tensor:
        """Logits of "drawn from the prior".

        The best logit is log p(z) − log q(z). With the trick of adversarial variational Bayes
        (Mescheder et al., ICML 2017) log p is added in closed form, and Dz learns the rest.
        """
        logits_B = nets["latent_discriminator"](z_BM11)
        if self.avb_trick:
            logits_B = logits_B + prior_log_density(z_BM11, self.prior.variance)
        return logits_B


LatentPenalty = MmdPenalty | DiscriminatorPenalty


def latent_penalty(
    mmd_weight: float, discriminator: LatentDiscriminatorSection, prior: parts.Prior
) -> LatentPenalty:
    """The one that a recipe asks for."""
    if discriminator.weight > 0:
        return DiscriminatorPenalty(discriminator.weight, prior, discriminator.avb_trick)
    return MmdPenalty(mmd_weight, prior)


@dataclass(frozen=True)
class Adversary:
    """−λ_a·mean f(G(latents)), on latents of a source.

    Attributes:
        weight: λ_a.
        source: where the latents come from.
        prior: of `interp` and `prior`; None where the source is `enc`.
        reaches_encoder: whether its gradient passes the encoder's latents.
    """

    weight: float
    source: LatentSource
    prior: parts.Prior | None
    reaches_encoder: bool


class AutoencoderPhase(Phase):
    """w·RMSE + latent penalty + adversarial term, over an encoder and, unless it is frozen, G.

    A frozen G runs in evaluation mode, or by the statistics of its batch without moving its own.

    Args:
        nets: the encoder's, `generator` (G), and `latent_discriminator` and `critic` if used.
        trains: names of those it updates.
        encode: images to latents.
        penalty: of the latents, None: they are free.
        adversary: None: there is no critic.
        reconstruction_weight: w.
        frozen_from_batch: a frozen G normalises by its batch.
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
        x_BCHW = parts.to_signed(batch.images_BCHW)
        z_BM11 = self.encode(self.networks, x_BCHW, draws)
        with self._generator_statistics():
            x_hat_BCHW = self.networks["generator"](z_BM11)
        error = rmse(x_hat_BCHW, x_BCHW)
        loss, terms = self.reconstruction_weight * error, {"rmse": error.detach()}
        if self.penalty is not None:
            value, named = self.penalty(self.networks, z_BM11, draws)
            loss, terms = loss + value, terms | named
        if self.adversary is not None:
            fakes_BCHW = self._fakes(self.adversary, x_BCHW, z_BM11, x_hat_BCHW, draws)
            score = mean_score(self.networks["critic"](fakes_BCHW))
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
        # The same latents need a second pass: the first one's gradient reaches the encoder.
        with batch_statistics(self.networks["generator"]):
            return self.networks["generator"](latents(self.networks, x_BCHW, draws))


class SamplerPhase(Phase):
    """−λ_a·mean f(G(z)), z of the prior, over G: the generator's step of a WGAN."""

    def __init__(self, nets: Mapping[str, nn.Module], weight: float, prior: parts.Prior) -> None:
        super().__init__(nets, trains=("generator",))
        self.weight, self.latents = weight, parts.prior_latent(prior)

    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        x_BCHW = parts.to_signed(batch.images_BCHW)
        fakes_BCHW = self.networks["generator"](self.latents(self.networks, x_BCHW, draws))
        score = mean_score(self.networks["critic"](fakes_BCHW))
        return PhaseLoss(-self.weight * score, {"fake_score": score.detach()})


class CriticPhase(Phase):
    """mean f(fakes) − mean f(x) + λ_gp·GP over f, with fakes G(latents).

    Encoder and G run without a graph, by the statistics of their batches, and are left untouched.
    """

    second_order = True

    def __init__(
        self, nets: Mapping[str, nn.Module], latents: parts.Latents, settings: CriticSection
    ) -> None:
        super().__init__(nets, trains=("critic",))
        self.latents, self.settings = latents, settings

    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        critic = self.networks["critic"]
        x_BCHW = parts.to_signed(batch.images_BCHW)
        with torch.no_grad(), batch_statistics(self.networks):
            z_BM11 = self.latents(self.networks, x_BCHW, draws)
            fakes_BCHW = self.networks["generator"](z_BM11)
        mix_B = draws.uniform("penalty", 0, 1).to(x_BCHW.dtype)
        penalty = gradient_penalty(critic, x_BCHW, fakes_BCHW, mix_B, self.settings.penalty_norm)
        real, fake = map(mean_score, critic(torch.cat([x_BCHW, fakes_BCHW])).chunk(2))
        loss = fake - real + self.settings.penalty_weight * penalty
        # `gap` estimates the Wasserstein distance, up to the critic's Lipschitz constant.
        terms = {"gap": real.detach() - fake.detach(), "penalty": penalty.detach()}
        return PhaseLoss(loss, terms)


class LatentDiscriminatorPhase(Phase):
    """Cross-entropy of Dz: samples of the prior against the encoder's latents.

    The encoder runs without a graph and is left untouched.
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
        x_BCHW = parts.to_signed(batch.images_BCHW)
        with torch.no_grad(), batch_statistics(self.networks):
            z_BM11 = self.encode(self.networks, x_BCHW, draws)
        prior_BM11 = self.penalty.prior.sample(draws, z_BM11.dtype)
        real = logistic_loss(self.penalty.logits_B(self.networks, prior_BM11), positive=True)
        fake = logistic_loss(self.penalty.logits_B(self.networks, z_BM11), positive=False)
        return PhaseLoss(real + fake, {"real": real.detach(), "fake": fake.detach()})


def mean_score(scores_B1: Tensor) -> Tensor:
    """Mean over the global batch, in float32 at least."""
    scores_B = scores_B1[:, 0]
    return global_mean(scores_B.to(torch.promote_types(scores_B.dtype, torch.float32)))
