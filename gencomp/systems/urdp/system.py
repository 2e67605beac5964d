"""The systems of the three stages, whose steps are batches for the critic and for the decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gencomp.coding.fixed_length import packed_bits
from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.evaluation.psnr import PEAK_TO_PEAK
from gencomp.networks import urdp as networks
from gencomp.rate_distortion.perception import unpenalised_gap
from gencomp.sums import Sums
from gencomp.system import Batch, Progress, Supply, System, Update
from gencomp.systems.common.calibration import calibration_batches
from gencomp.systems.common.evaluation_sums import errors_summary, squared_errors
from gencomp.systems.common.objectives import Objective, SystemOfObjectives
from gencomp.systems.common.pixels import Pixels
from gencomp.systems.urdp import code as coding
from gencomp.systems.urdp.codec import CodedLayer, UrdpCodec
from gencomp.systems.urdp.objectives import (
    CodecPhase,
    CriticPhase,
    batch_in_epoch,
    is_decoder_batch,
    scores_B,
    start_weight,
)
from gencomp.systems.urdp.recipe import (
    EndToEndLoss,
    EndToEndRecipe,
    NetworksSection,
    RefinementRecipe,
    UniversalRecipe,
    UrdpRecipe,
)
from gencomp.systems.urdp.tables import LatentTables


class Layer(NamedTuple):
    """One encoder with its code and its tables; a refined code has two layers.

    Attributes:
        encoder: the name of the encoder among the networks of the channel.
        tables: the name of its `LatentTables`.
        code: the code.
    """

    encoder: str
    tables: str
    code: coding.Code


class UrdpSystem(SystemOfObjectives):
    """A system of layers, a decoder and a critic.

    Args:
        recipe: the recipe of the stage.
        sizes: the sizes of the networks, which are those of the encoder's run.
        layers: the layers of the code, the base first.
        nets: the networks that a checkpoint holds, but for decoder and critic.
        frozen: the networks of a parent, in evaluation mode.
    """

    def __init__(
        self,
        recipe: UrdpRecipe,
        sizes: NetworksSection,
        layers: Sequence[Layer],
        nets: Mapping[str, nn.Module],
        frozen: Mapping[str, nn.Module],
    ) -> None:
        self.recipe, self.layers = recipe, layers
        side, channels = sizes.image_size, sizes.channels
        self.pixels = Pixels(channels, side, side, signed=False)
        self.frozen = nn.ModuleDict(frozen)
        latents = sum(layer.code.latents for layer in layers)
        every = {
            **nets,
            "decoder": networks.decoder(side, channels, latents, sizes.decoder_width),
            "critic": networks.critic(side, channels, sizes.decoder_width),
        }
        encoders = {layer.encoder: {**every, **frozen}[layer.encoder] for layer in layers}
        used = {**encoders, "decoder": every["decoder"], "critic": every["critic"]}
        evaluates = tuple(name for name in encoders if name in frozen)
        trains = (*(name for name in encoders if self.learns(name)), "decoder")
        critic = recipe.critic
        objectives = {
            "critic": Objective(
                CriticPhase(
                    used,
                    evaluates,
                    self.channel,
                    self.to_unit,
                    penalty_weight=critic.penalty_weight,
                ),
                critic.optimizer,
            ),
            "codec": Objective(
                CodecPhase(
                    used, trains, evaluates, self.channel, self.to_unit, self.perception_weight
                ),
                recipe.optimizer,
            ),
        }
        super().__init__(every, objectives)

    def learns(self, encoder: str) -> bool:
        """Whether an encoder of that name is trained."""
        return encoder == "encoder"

    def updates(self, progress: Progress) -> Sequence[Update]:
        """One update on a fresh batch, of the critic or of the codec by its number in the epoch.

        Raises:
            InputError: an epoch has a single batch, so the decoder would never be trained.
        """
        size = self.recipe.data.batch_size * self.recipe.training.accumulate
        if progress.epoch_length <= size:
            raise InputError(
                f"an epoch of {progress.epoch_length} images is a single batch of {size}, which is"
                " for the critic, so the decoder would never be trained: take a smaller"
                " data.batch_size or more images"
            )
        index = batch_in_epoch(progress, size)
        decoder = is_decoder_batch(index, self.recipe.critic.steps)
        return (Update("codec" if decoder else "critic", fresh_batch=True),)

    def perception_weight(self, progress: Progress) -> float:
        """The weight λ at one position of the run."""
        loss = self.recipe.loss
        if isinstance(loss, EndToEndLoss) and loss.perception_weight == 0:
            return start_weight(progress.epoch, loss.start_weight, loss.start_epochs)
        return loss.perception_weight

    def to_unit(self, images_BCHW: Tensor) -> Tensor:
        """Map uint8 images [B, 3, H, W] to images [B, C, H, W] on [0, 1]."""
        shape = (self.pixels.channels, self.pixels.height, self.pixels.width)
        return self.pixels.to_values(images_BCHW).unflatten(1, shape)

    def channel(self, nets: nn.ModuleDict, x_BCHW: Tensor, draws: Draws) -> Tensor:
        """The decoder's input [B, K] for images on [0, 1], all layers side by side."""
        parts = []
        for number, (name, _, code) in enumerate(self.layers):
            encoder = nets[name]
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.learns(name)):
                f_BK = encoder(x_BCHW)
            unit_BK = code.random_units(draws, f"dither {number}")
            parts.append(coding.received(f_BK, unit_BK, code, encoder.training))
        return torch.cat(parts, dim=1)

    def initialise(self, parents: Mapping[str, Mapping[str, Tensor]], supply: Supply) -> None:
        """Check on the first batch that the images fit, and load what starts from a parent.

        Raises:
            InputError: the images have another size, or are in colour where grey ones are modelled.
        """
        batch, _ = next(supply)
        self.pixels.require(batch.images_BCHW)

    @torch.no_grad()
    def finalise(self, supply: Supply) -> None:
        """Count the latents of the encoder that was trained, for the entropy coder's tables."""
        for name, tables_name, _ in self.layers:
            if tables_name not in self.networks:
                continue
            tables, encoder = self.networks[tables_name], self.every(name)
            assert isinstance(tables, LatentTables)
            encoder.eval()
            tables.count(
                encoder(self.to_unit(batch.images_BCHW)) for batch, _ in calibration_batches(supply)
            )

    def every(self, name: str) -> nn.Module:
        """The network of that name, trained or frozen."""
        return self.networks[name] if name in self.networks else self.frozen[name]

    def evaluate(self, batch: Batch, draws: Draws) -> Sums:
        """The squared errors, and the critic's scores of images and reconstructions."""
        x_BCHW, x_hat_BCHW = self._reconstructed(batch, draws)
        sums = squared_errors(x_BCHW, x_hat_BCHW, self.pixels.range)
        critic = self.networks["critic"]
        sums.add("real_score", scores_B(critic, x_BCHW))
        sums.add("fake_score", scores_B(critic, x_hat_BCHW))
        return sums

    def summary(self, sums: Sums) -> dict[str, float]:
        """The rate, the errors, and the gap of the critic that was trained with the decoder.

        The published errors are `mse_unit`, of pixels on [0, 1]. The `critic_gap` is mean D(x) − mean D(x̂), the published perception. `critic_distance` is
        the Wasserstein-1 distance behind it, corrected for the bias of the gradient penalty.
        """
        gap = sums.mean("real_score") - sums.mean("fake_score")
        bits = sum(packed_bits(layer.code.latents, layer.code.levels) for layer in self.layers)
        return {
            "bpp": bits / (self.pixels.height * self.pixels.width),
            **errors_summary(sums),
            "mse_unit": sums.mean("mse") / PEAK_TO_PEAK**2,
            "critic_gap": gap,
            "critic_distance": unpenalised_gap(gap, self.recipe.critic.penalty_weight),
            "images": sums.count("mse"),
        }

    def reconstruct(self, batch: Batch, draws: Draws) -> Tensor:
        _, x_hat_BCHW = self._reconstructed(batch, draws)
        return self.pixels.to_images(x_hat_BCHW.flatten(1))

    def pictures(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        return {
            "originals": batch.images_BCHW,
            "reconstructions": self.reconstruct(batch, draws),
        }

    def codec(self) -> UrdpCodec:
        return self._codec({self.networks["decoder"]: 1.0})

    def mixed_codec(self, other: System, share: float) -> UrdpCodec:
        """The codec of (1 − a)·g(y) + a·g'(y) for this decoder g and the other's g'.

        Raises:
            InputError: the other decoder reads the streams of another encoder.
        """
        if not isinstance(other, UrdpSystem) or (
            other.codec().layer_fingerprints != self.codec().layer_fingerprints
        ):
            raise InputError(
                "the two runs have decoders of different encoders, so no stream can be shown"
                " between them"
            )
        return self._codec({self.networks["decoder"]: 1 - share, other.networks["decoder"]: share})

    def _codec(self, decoders: Mapping[nn.Module, float]) -> UrdpCodec:
        layers = []
        for layer in self.layers:
            tables = self.every(layer.tables)
            assert isinstance(tables, LatentTables)
            layers.append(CodedLayer(self.every(layer.encoder), tables, layer.code))
        return UrdpCodec(layers, decoders, self.pixels)

    def _reconstructed(self, batch: Batch, draws: Draws) -> tuple[Tensor, Tensor]:
        """The images of a batch and their reconstructions, [B, C, H, W] on [0, 1]."""
        self.pixels.require(batch.images_BCHW)
        x_BCHW = self.to_unit(batch.images_BCHW)
        nets = nn.ModuleDict({layer.encoder: self.every(layer.encoder) for layer in self.layers})
        return x_BCHW, self.networks["decoder"](self.channel(nets, x_BCHW, draws))


class EndToEnd(UrdpSystem):
    """Encoder, decoder and critic for one λ."""

    def __init__(self, recipe: EndToEndRecipe) -> None:
        sizes, code = recipe.networks, coding.Code.of(recipe.code)
        nets = {"encoder": build_encoder(sizes, code), "tables": LatentTables(code)}
        super().__init__(recipe, sizes, [Layer("encoder", "tables", code)], nets, frozen={})


class SecondStage(UrdpSystem):
    """A system that starts from the encoder of an end-to-end run."""

    recipe: UniversalRecipe | RefinementRecipe

    def load_frozen(self, parents: Mapping[str, Mapping[str, Tensor]]) -> None:
        for own, name in (("base_encoder", "encoder"), ("base_tables", "tables")):
            if own in self.frozen:
                self.frozen[own].load_state_dict(part(parents["encoder"], name))

    def initialise(self, parents: Mapping[str, Mapping[str, Tensor]], supply: Supply) -> None:
        super().initialise(parents, supply)
        if self.recipe.critic.from_parent:
            self.networks["critic"].load_state_dict(part(parents["encoder"], "critic"))


class Universal(SecondStage):
    """A decoder and a critic for another λ on the encoder of an end-to-end run."""

    def __init__(self, recipe: UniversalRecipe, parent: EndToEndRecipe) -> None:
        base = base_layer(parent)
        found = base_networks(parent)
        self._drifting = recipe.encoder_statistics == "drifting"
        nets, frozen = (found, {}) if self._drifting else ({}, found)
        super().__init__(recipe, parent.networks, [base], nets, frozen)

    def initialise(self, parents: Mapping[str, Mapping[str, Tensor]], supply: Supply) -> None:
        super().initialise(parents, supply)
        if self._drifting:
            for own, name in (("base_encoder", "encoder"), ("base_tables", "tables")):
                self.networks[own].load_state_dict(part(parents["encoder"], name))


class Refinement(SecondStage):
    """A second encoder beside the frozen one of an end-to-end run; the decoder reads both codes."""

    def __init__(self, recipe: RefinementRecipe, parent: EndToEndRecipe) -> None:
        code = coding.Code.of(recipe.code)
        layers = [base_layer(parent), Layer("encoder", "tables", code)]
        nets = {"encoder": build_encoder(parent.networks, code), "tables": LatentTables(code)}
        super().__init__(recipe, parent.networks, layers, nets, base_networks(parent))


def base_layer(parent: EndToEndRecipe) -> Layer:
    """The layer of the encoder of an end-to-end run."""
    return Layer("base_encoder", "base_tables", coding.Code.of(parent.code))


def base_networks(parent: EndToEndRecipe) -> dict[str, nn.Module]:
    """The encoder and the tables of an end-to-end run, under their names in later stages."""
    code = coding.Code.of(parent.code)
    return {"base_encoder": build_encoder(parent.networks, code), "base_tables": LatentTables(code)}


def build_encoder(sizes: NetworksSection, code: coding.Code) -> nn.Sequential:
    return networks.encoder(sizes.image_size, sizes.channels, code.latents, sizes.width)


def part(state: Mapping[str, Tensor], network: str) -> dict[str, Tensor]:
    """The state of one network within the state of all networks of a run."""
    prefix = f"{network}."
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
