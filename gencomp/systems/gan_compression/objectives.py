"""The phases of a step: the codec's first, then the discriminator's on what the codec has made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gencomp.adversarial_losses import (
    discriminator_losses,
    feature_differences,
    generator_losses,
)
from gencomp.collectives import global_means
from gencomp.draws import Draws
from gencomp.losses import at_least_float32, gradient_penalties, real_penalties
from gencomp.networks.gan_compression.discriminator import Condition, Discriminator
from gencomp.system import Batch, Phase, PhaseLoss, Progress
from gencomp.systems.gan_compression.channel import Channel, Passed, Scene
from gencomp.systems.gan_compression.code import Code
from gencomp.systems.gan_compression.labels import pixels_of_cells
from gencomp.systems.gan_compression.recipe import (
    AdversarialLoss,
    DiscriminatorSection,
    DistortionLoss,
    GanLoss,
)


class Made(NamedTuple):
    """The scene of a batch, with the code that its receiver had and the images that it made."""

    scene: Scene
    received_BCHW: Tensor
    x_hat_BCHW: Tensor


class Reconstructions:
    """What the codec's update has made of the batches of a step, for the discriminator's.

    Without it the discriminator's update would run encoder and decoder again, which took a fifth to
    a quarter more CPU time a step with narrow networks. The images are those before the codec's
    update, as they would be if the discriminator's came first.
    """

    def __init__(self) -> None:
        self._step = -1
        self._made: list[tuple[Tensor, Made]] = []

    def begin(self, step: int) -> None:
        """Forget what belongs to another step."""
        if step != self._step:
            self._step, self._made = step, []

    def put(self, batch: Batch, made: Made) -> None:
        self._made.append((batch.images_BCHW, made))

    def of(self, step: int, batch: Batch) -> Made | None:
        """What was made of a batch of this step; None for a batch that the codec has not had."""
        if step != self._step:
            return None
        return next((m for images, m in self._made if images is batch.images_BCHW), None)


class CodecPhase(Phase):
    """The objective of encoder and decoder, with the weights of the recipe:

        distortion + perceptual distance + rate (+ adversarial term + feature matching)

    In mode selective the distortion is that of the kept regions. Other terms are of whole images,
    as regions that are made from labels alone should have the features of real ones.

    Args:
        nets: the networks of the channel, `discriminator` and `perceptual` if their terms have a
            weight.
        trains: the names of the networks that it updates.
        channel: the way from images to images.
        loss: the section of the recipe.
        held: where it leaves what it has made.
    """

    logs_gradients = True

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        trains: Sequence[str],
        channel: Channel,
        loss: DistortionLoss,
        held: Reconstructions,
    ) -> None:
        super().__init__(nets, trains, evaluates=[name for name in nets if name not in trains])
        self.channel, self.loss, self.held = channel, loss, held

    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        self.held.begin(progress.step)
        scene = self.channel.drawn_scene(batch, draws)
        passed = self.channel.passed(self.networks, scene, draws)
        if "discriminator" in self.networks:
            made = Made(scene, passed.received_BCHW.detach(), passed.x_hat_BCHW.detach())
            self.held.put(batch, made)
        code, weights = code_of(self.networks), self.loss.weights()
        terms_B = {"mse": distortions(scene, passed.x_hat_BCHW, self.channel.stride)}
        factors = {"mse": weights.distortion}
        if weights.perceptual:
            network = self.networks["perceptual"]
            terms_B["perceptual"] = network(scene.images_BCHW, passed.x_hat_BCHW)
            factors["perceptual"] = weights.perceptual
        if isinstance(self.loss, AdversarialLoss):
            judged = self._judged(self.loss, scene, passed)
            terms_B |= judged
            of_scales = [name for name in judged if name != "feature_matching"]
            factors |= dict.fromkeys(of_scales, weights.adversarial)
            factors["feature_matching"] = weights.feature_matching
        others_B = level_shares(code, passed.w_BCHW)
        if code.logits_CL is not None:
            others_B["estimated_bpp"] = estimated_bpp(code, scene, passed)
        means = global_means(*terms_B.values(), *others_B.values())
        found = dict(zip([*terms_B, *others_B], means, strict=True))
        loss = torch.stack([factors[name] * found[name] for name in terms_B]).sum()
        if "estimated_bpp" in found:
            loss = loss + self._rate_weight(found["estimated_bpp"]) * found["estimated_bpp"]
        if (penalty := code.centre_penalty()) is not None:
            loss = loss + penalty
        return PhaseLoss(loss, {name: value.detach() for name, value in found.items()})

    def _judged(self, loss: AdversarialLoss, scene: Scene, passed: Passed) -> dict[str, Tensor]:
        """The adversarial term of each scale, and feature matching if it has a weight."""
        discriminator = discriminator_of(self.networks)
        condition = condition_of(discriminator, scene, passed.received_BCHW)
        fake = discriminator(passed.x_hat_BCHW, condition)
        found = {
            f"adversarial_{k}": generator_losses(loss.kind(), one.scores)
            for k, one in enumerate(fake)
        }
        if loss.weights().feature_matching:
            with torch.no_grad():
                real = discriminator(scene.images_BCHW, condition)
            found["feature_matching"] = feature_differences(
                [one.features for one in real],
                [one.features for one in fake],
                loss.feature_matching_scales == "mean",
            )
        return found

    def _rate_weight(self, bpp: Tensor) -> Tensor:
        rate = self.loss.rate
        above, below = bpp.new_full((), rate.weight), bpp.new_full((), rate.weight_below)
        if rate.target is None:
            return above
        return torch.where(bpp.detach() > rate.target, above, below)


class DiscriminatorPhase(Phase):
    """The objective of the discriminators, summed over scales, with penalties on their gradients.

    Real and generated images pass in one batch, so that a spectral norm takes one step of its power
    iteration in each update.

    Args:
        nets: the networks of the channel, and `discriminator`.
        channel: the way from images to images.
        kind: the kind of the loss.
        settings: the section of the recipe.
        held: what the codec's update has made of the same batch.
    """

    logs_gradients = True

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        channel: Channel,
        kind: GanLoss,
        settings: DiscriminatorSection,
        held: Reconstructions,
    ) -> None:
        super().__init__(nets, trains=("discriminator",))
        self.channel, self.kind, self.settings, self.held = channel, kind, settings, held
        self.second_order = kind == "wgan_gp" or settings.r1_weight > 0

    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        scene, received_BCHW, x_hat_BCHW = self.held.of(progress.step, batch) or self._made(
            batch, draws
        )
        discriminator = discriminator_of(self.networks)
        condition = condition_of(discriminator, scene, received_BCHW)
        x_BCHW = scene.images_BCHW
        x_hat_BCHW = x_hat_BCHW.to(x_BCHW.dtype)
        with parametrize.cached():
            both = discriminator(torch.cat([x_BCHW, x_hat_BCHW]), condition.twice())
            scores = [one.scores.chunk(2) for one in both]
            penalties_B = self._penalties(
                discriminator, x_BCHW, x_hat_BCHW, condition, draws, progress
            )
        losses_B = {
            f"loss_{k}": discriminator_losses(self.kind, real, fake)
            for k, (real, fake) in enumerate(scores)
        }
        seen_B = {
            f"{what}_{k}": at_least_float32(one.detach()).flatten(1).mean(1)
            for k, pair in enumerate(scores)
            for what, one in zip(("real", "fake"), pair, strict=True)
        }
        columns = {**losses_B, **penalties_B, **seen_B}
        found = dict(zip(columns, global_means(*columns.values()), strict=True))
        loss = torch.stack([found[name] for name in losses_B]).sum()
        for name in penalties_B:
            loss = loss + self._factor(name) * found[name]
        return PhaseLoss(loss, {name: found[name].detach() for name in (*penalties_B, *seen_B)})

    def _made(self, batch: Batch, draws: Draws) -> Made:
        with torch.no_grad():
            scene = self.channel.drawn_scene(batch, draws)
            passed = self.channel.passed(self.networks, scene, draws)
        return Made(scene, passed.received_BCHW, passed.x_hat_BCHW)

    def _factor(self, penalty: str) -> float:
        settings = self.settings
        if penalty == "r1":
            return settings.r1_weight / 2 * settings.r1_every
        return settings.penalty_weight

    def _penalties(
        self,
        discriminator: Discriminator,
        x_BCHW: Tensor,
        x_hat_BCHW: Tensor,
        condition: Condition,
        draws: Draws,
        progress: Progress,
    ) -> dict[str, Tensor]:
        """The penalties of each image, summed over scales, each at the images of its scale.

        The score of an image is the mean over its patches. Labels and latents are the same for a
        mixture of images.
        """
        found: dict[str, list[Tensor]] = {}
        r1 = self.settings.r1_weight > 0 and progress.step % self.settings.r1_every == 0
        if self.kind != "wgan_gp" and not r1:
            return {}
        mix_B = draws.uniform("penalty", 0, 1).to(x_BCHW.dtype)
        extras = discriminator.conditions(condition, x_BCHW)
        real, fake = discriminator.pyramid(x_BCHW), discriminator.pyramid(x_hat_BCHW)
        for k, extra_BCHW in enumerate(extras):

            def score(
                images_BCHW: Tensor, k: int = k, extra_BCHW: Tensor | None = extra_BCHW
            ) -> Tensor:
                return discriminator.judge(k, images_BCHW, extra_BCHW).scores.flatten(1).mean(1)

            if self.kind == "wgan_gp":
                penalty_B = gradient_penalties(score, real[k], fake[k], mix_B, "per_image")
                found.setdefault("penalty", []).append(penalty_B)
            if r1:
                found.setdefault("r1", []).append(real_penalties(score, real[k]))
        return {name: torch.stack(terms_B).sum(0) for name, terms_B in found.items()}


def distortions(scene: Scene, x_hat_BCHW: Tensor, stride: int) -> Tensor:
    """The mean squared error of each image on [−1, 1], [n]; in mode selective of kept regions.

    An image of which nothing is kept has the error 0.
    """
    squares = at_least_float32(x_hat_BCHW) - at_least_float32(scene.images_BCHW)
    squares_BCHW = squares.square()
    if scene.kept_B1HW is None:
        return squares_BCHW.flatten(1).mean(1)
    kept_B1HW = scene.cut(pixels_of_cells(scene.kept_B1HW, stride)).to(squares_BCHW.dtype)
    values_B = (3 * kept_B1HW.flatten(1).sum(1)).clamp_min(1)
    return (squares_BCHW * kept_B1HW).flatten(1).sum(1) / values_B


def estimated_bpp(code: Code, scene: Scene, passed: Passed) -> Tensor:
    """The bits of each image's symbols under the learnt prior, per pixel of the image, [n]."""
    bits_BCHW = code.bits_BCHW(passed.w_BCHW)
    if scene.kept_B1HW is not None:
        bits_BCHW = bits_BCHW * scene.kept_B1HW
    return bits_BCHW.flatten(1).sum(1) / (scene.height * scene.width)


def level_shares(code: Code, w_BCHW: Tensor) -> dict[str, Tensor]:
    """The share of each level in each channel of an image, [n] by name."""
    w_BCHW = at_least_float32(w_BCHW.detach())
    counts_BCL = code.level_counts_BCL(code.nearest(w_BCHW)).to(w_BCHW.dtype)
    shares_BCL = counts_BCL / (w_BCHW.shape[2] * w_BCHW.shape[3])
    return {
        f"share_{channel}_{level}": shares_BCL[:, channel, level]
        for channel in range(shares_BCL.shape[1])
        for level in range(shares_BCL.shape[2])
    }


def condition_of(discriminator: Discriminator, scene: Scene, received_BCHW: Tensor) -> Condition:
    """What a discriminator knows of a scene."""
    planes = None if scene.planes_BKHW is None else scene.cut(scene.planes_BKHW)
    latents = None if discriminator.latents is None else received_BCHW.detach()
    return Condition(planes, latents)


def code_of(nets: nn.ModuleDict) -> Code:
    found = nets["code"]
    assert isinstance(found, Code)
    return found


def discriminator_of(nets: nn.ModuleDict) -> Discriminator:
    found = nets["discriminator"]
    assert isinstance(found, Discriminator)
    return found
