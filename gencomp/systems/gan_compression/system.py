"""The systems of both stages: encoder and decoder alone, or against discriminators."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.evaluation.psnr import psnr
from gencomp.networks.gan_compression.discriminator import Discriminator, least_side
from gencomp.sums import Sums
from gencomp.system import Batch, Progress, Supply, Update
from gencomp.systems.common.evaluation_sums import errors_summary, squared_errors
from gencomp.systems.common.objectives import Objective, SystemOfObjectives
from gencomp.systems.common.perceptual import PerceptualDistance
from gencomp.systems.common.pixels import to_bytes
from gencomp.systems.gan_compression.channel import Passed, Scene, channel, codec_networks
from gencomp.systems.gan_compression.code import Code, entropy_bits
from gencomp.systems.gan_compression.codec import GanCodec
from gencomp.systems.gan_compression.objectives import (
    CodecPhase,
    DiscriminatorPhase,
    Reconstructions,
    code_of,
    distortions,
)
from gencomp.systems.gan_compression.recipe import (
    AdversarialRecipe,
    DistortionRecipe,
    GanRecipe,
    PerceptualSection,
)

# The number of images whose symbols the tables count, or a few more.
_TABLE_IMAGES = 256


class GanSystem(SystemOfObjectives):
    """A system of sender and receiver, with the objective of both.

    Args:
        recipe: the recipe.
        others: further networks that a checkpoint holds.
    """

    def __init__(self, recipe: GanRecipe, others: Mapping[str, nn.Module]) -> None:
        self.recipe, self.channel = recipe, channel(recipe)
        nets = codec_networks(recipe)
        self.trained = tuple(nets)
        self.frozen = nn.ModuleDict(perceptual_networks(recipe))
        self.held = Reconstructions()
        used = {**nets, **others, **self.frozen}
        phase = CodecPhase(used, self.trained, self.channel, recipe.loss, self.held)
        self.codec_objective = Objective(phase, recipe.optimizer)
        super().__init__(
            {**nets, **others}, {"codec": self.codec_objective, **self.more_objectives(used)}
        )

    def more_objectives(self, used: Mapping[str, nn.Module]) -> dict[str, Objective]:
        """The objectives after the codec's, by name."""
        return {}

    @property
    def code(self) -> Code:
        return code_of(self.networks)

    def load_frozen(self, parents: Mapping[str, Mapping[str, Tensor]]) -> None:
        for network in self.frozen.values():
            assert isinstance(network, PerceptualDistance)
            network.load()

    @torch.no_grad()
    def finalise(self, supply: Supply) -> None:
        """Count the symbols of training images, for the tables of the entropy coder."""
        self.networks.eval()
        found, seen = [], 0
        while seen < _TABLE_IMAGES:
            batch, draws = next(supply)
            scene = self.channel.scene(batch)
            known_BFHW = self.channel.known(self.networks, scene)
            found.append(self.channel.latents(self.networks, scene, known_BFHW))
            seen += draws.batch_size
        self.code.count(found)

    def evaluate(self, batch: Batch, draws: Draws) -> Sums:
        """The errors, and how often each level occurs in what is sent.

        In mode selective, regions are drawn as in training.
        """
        scene, passed = self._passed(batch, draws)
        sums = squared_errors(scene.images_BCHW, passed.x_hat_BCHW)
        sums.add("pixels", torch.full((len(passed.w_BCHW),), float(scene.height * scene.width)))
        places = passed.w_BCHW.shape[2] * passed.w_BCHW.shape[3]
        sent_B = torch.full((len(passed.w_BCHW),), float(places))
        if scene.kept_B1HW is not None:
            sent_B = scene.kept_B1HW.flatten(1).sum(1)
            errors_B = distortions(scene, passed.x_hat_BCHW, self.channel.stride).double()
            sums.add("kept_mse", errors_B)
            sums.add("kept_share", sent_B / places)
        sums.add("sent_places", sent_B)
        symbols_BCHW = self.code.symbols(passed.w_BCHW)
        counts_BCL = self.code.level_counts_BCL(symbols_BCHW, scene.kept_B1HW)
        for one, counts_B in enumerate(counts_BCL.flatten(1).unbind(1)):
            sums.add(f"symbols_{one}", counts_B)
        return sums

    def summary(self, sums: Sums) -> dict[str, float]:
        """The rates and errors.

        `nominal_bpp` is the fixed length of all symbols that are sent, log2 L bits each, and
        `entropy_bpp` that of an ideal code for how often each level occurs in each channel of these
        images, which is the better one the fewer images there are. Labels and masks are in neither.
        In mode selective, `kept_share` is the share of latents that are sent, and `kept_mse` the
        error of their regions.
        """
        settings, images = self.recipe.code, sums.count("mse")
        pixels, places = sums.mean("pixels"), sums.mean("sent_places")
        names = [f"symbols_{one}" for one in range(settings.channels * settings.levels)]
        counts = torch.tensor([sums.mean(name) for name in names], dtype=torch.float64)
        counts_CL = counts.reshape(settings.channels, settings.levels)
        kept: dict[str, float] = {}
        if "kept_mse" in sums.values:
            kept = {name: sums.mean(name) for name in ("kept_share", "kept_mse")}
            kept["kept_psnr"] = psnr(kept["kept_mse"])
        return {
            "nominal_bpp": places * settings.channels * math.log2(settings.levels) / pixels,
            "entropy_bpp": float(entropy_bits(counts_CL)) / pixels,
            **errors_summary(sums),
            **kept,
            "images": images,
        }

    def reconstruct(self, batch: Batch, draws: Draws) -> Tensor:
        return to_bytes(self._passed(batch, draws)[1].x_hat_BCHW)

    def sample(self, draws: Draws, like: Batch) -> Tensor:
        """Images of symbols drawn from the tables, each on its own, and of the labels of `like`.

        In mode selective nothing is kept, so the images are made from labels alone.
        """
        scene = self.channel.scene(like)
        received_BCHW = self._drawn_code(draws, scene)
        if self.channel.mode == "selective":
            received_BCHW = torch.zeros_like(received_BCHW)
        return to_bytes(self._decoded(scene, received_BCHW, draws))

    def pictures(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        found = {
            "originals": batch.images_BCHW,
            "reconstructions": self.reconstruct(batch, draws),
        }
        if self.channel.mode == "selective":
            found["from labels alone"] = self.sample(draws, like=batch)
        return found

    def codec(self) -> GanCodec:
        return GanCodec(self.coding_networks(), self.channel, self.recipe)

    def coding_networks(self) -> nn.ModuleDict:
        return nn.ModuleDict({name: self.networks[name] for name in self.trained})

    def _drawn_code(self, draws: Draws, scene: Scene) -> Tensor:
        """Centres of symbols from the tables."""
        size = self.channel.latent_size(scene.height, scene.width)
        unit_BCHW = draws.uniform("symbols", 0, 1, self.recipe.code.channels, *size)
        cumulative_CL = torch.from_numpy(self.code.frequencies()).double().cumsum(1)
        bounds_CL = (cumulative_CL / cumulative_CL[:, -1:]).to(unit_BCHW)
        above = unit_BCHW[..., None] >= bounds_CL[:, None, None, :-1]
        return self.code.values(above.sum(-1), scene.x_BCHW.dtype)

    def _decoded(self, scene: Scene, received_BCHW: Tensor, draws: Draws) -> Tensor:
        """The images of a code, of their own size."""
        known_BFHW = self.channel.known(self.networks, scene)
        noise_BVHW = self.channel.noise(draws, scene.height, scene.width)
        if noise_BVHW is not None:
            noise_BVHW = noise_BVHW.to(received_BCHW.dtype)
        x_hat_BCHW = self.channel.decoded(self.networks, received_BCHW, known_BFHW, noise_BVHW)
        return scene.cut(x_hat_BCHW)

    def _passed(self, batch: Batch, draws: Draws) -> tuple[Scene, Passed]:
        scene = self.channel.drawn_scene(batch, draws)
        return scene, self.channel.passed(self.networks, scene, draws)


class Distortion(GanSystem):
    """Encoder and decoder for distortion alone."""

    def __init__(self, recipe: DistortionRecipe) -> None:
        super().__init__(recipe, {})


class Adversarial(GanSystem):
    """Encoder and decoder against discriminators."""

    recipe: AdversarialRecipe

    def __init__(self, recipe: AdversarialRecipe) -> None:
        super().__init__(recipe, {"discriminator": discriminator(recipe)})

    def more_objectives(self, used: Mapping[str, nn.Module]) -> dict[str, Objective]:
        recipe = self.recipe
        nets = {name: used[name] for name in (*self.trained, "discriminator")}
        phase = DiscriminatorPhase(
            nets, self.channel, recipe.loss.kind(), recipe.discriminator, self.held
        )
        return {"discriminator": Objective(phase, recipe.discriminator_optimizer)}

    def updates(self, progress: Progress) -> Sequence[Update]:
        """The codec's update on a fresh batch, and the discriminator's first one on the same."""
        more = self.recipe.discriminator.updates - 1
        return (
            Update("codec", fresh_batch=True),
            Update("discriminator", fresh_batch=False),
            *[Update("discriminator", fresh_batch=True)] * more,
        )

    def initialise(self, parents: Mapping[str, Mapping[str, Tensor]], supply: Supply) -> None:
        """Take encoder and decoder of a parent run, if there is one.

        Raises:
            InputError: the images are too small for the coarsest scale.
        """
        batch, _ = next(supply)
        least, size = least_side(self.recipe.discriminator.scales), batch.images_BCHW.shape[2:]
        if min(size) < least:
            raise InputError(
                f"discriminator.scales is {self.recipe.discriminator.scales}, which takes images of"
                f" at least {least}×{least} pixels, but there are images of {size[0]}×{size[1]}:"
                " take fewer scales or larger images"
            )
        if "distortion" in parents:
            state = parents["distortion"]
            for name in self.trained:
                self.networks[name].load_state_dict(part(state, name), strict=name != "code")


def discriminator(recipe: AdversarialRecipe) -> Discriminator:
    """Fresh discriminators."""
    settings, of_labels = recipe.discriminator, recipe.labels
    return Discriminator(
        planes=of_labels.planes if of_labels.used else 0,
        width=settings.width,
        scales=settings.scales,
        norm=settings.norm,
        padding=recipe.networks.padding,
        spectral=settings.spectral_norm,
        latents=recipe.code.channels if settings.latent_features else 0,
        latent_stride=channel(recipe).stride,
        latent_features=settings.latent_features,
    )


def perceptual_networks(recipe: GanRecipe) -> dict[str, nn.Module]:
    """The frozen network of the perceptual term, not yet loaded; none if the term has no weight."""
    settings: PerceptualSection = recipe.loss.perceptual
    if not recipe.loss.weights().perceptual or settings.path is None:
        return {}
    assert settings.sha256 is not None
    return {
        "perceptual": PerceptualDistance(
            Path(settings.path), settings.sha256, settings.kind, settings.layer_weights
        )
    }


def part(state: Mapping[str, Tensor], network: str) -> dict[str, Tensor]:
    """The state of one network within the state of all networks of a run."""
    prefix = f"{network}."
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
