"""The systems of the stages, whose steps are batches for the critic or for the decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gencomp.coding.symbols import LayerSymbols
from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.evaluation.psnr import PEAK_TO_PEAK
from gencomp.networks import urdp as networks
from gencomp.rate_distortion.perception import unpenalised_gap, unpenalised_slope
from gencomp.recipes.schema import BaseRecipe
from gencomp.sums import Sums
from gencomp.system import Batch, Progress, Supply, System, Update
from gencomp.systems.common.calibration import calibration_batches
from gencomp.systems.common.evaluation_sums import errors_summary, squared_errors
from gencomp.systems.common.objectives import Objective, SystemOfObjectives
from gencomp.systems.common.pixels import Pixels
from gencomp.systems.urdp import code as coding
from gencomp.systems.urdp.codec import CodedLayer, UrdpCodec, layer_fingerprints
from gencomp.systems.urdp.objectives import (
    CodecPhase,
    CriticPhase,
    batch_in_epoch,
    is_decoder_batch,
    scores_B,
    start_weight,
)
from gencomp.systems.urdp.recipe import (
    CodecRecipe,
    CriticRecipe,
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
        nets: the networks that a checkpoint holds, `critic` among them.
        frozen: the networks of parents, in evaluation mode.
        trains: the names of the networks that the codec's phase trains; with none there is no such
            phase.
    """

    def __init__(
        self,
        recipe: UrdpRecipe,
        sizes: NetworksSection,
        layers: Sequence[Layer],
        nets: Mapping[str, nn.Module],
        frozen: Mapping[str, nn.Module],
        trains: Sequence[str],
    ) -> None:
        self.recipe, self.layers, self._trains = recipe, layers, frozenset(trains)
        self.pixels = Pixels(sizes.channels, sizes.image_size, sizes.image_size, signed=False)
        self.frozen = nn.ModuleDict(frozen)
        every = {**nets, **frozen}
        used = {name: every[name] for name in (*_encoders(layers), "decoder", "critic")}
        evaluates = tuple(name for name in used if name in frozen)
        settings = recipe.critic
        critic = CriticPhase(used, evaluates, self.channel, self.to_unit, settings.penalty_weight)
        objectives = {"critic": Objective(critic, settings.optimizer)}
        if trains:
            codec = CodecPhase(
                used, trains, evaluates, self.channel, self.to_unit, self.perception_weight
            )
            objectives["codec"] = Objective(codec, recipe.optimizer)
        super().__init__(nets, objectives)

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
        assert isinstance(self.recipe, CodecRecipe)
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
            with torch.set_grad_enabled(torch.is_grad_enabled() and name in self._trains):
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
        """The squared errors, and the critic's score of each image minus its reconstruction's."""
        x_BCHW, x_hat_BCHW = self._reconstructed(batch, draws)
        sums = squared_errors(x_BCHW, x_hat_BCHW, self.pixels.range)
        critic = self.networks["critic"]
        sums.add("critic_gap", scores_B(critic, x_BCHW) - scores_B(critic, x_hat_BCHW))
        return sums

    def summary(self, sums: Sums) -> dict[str, float]:
        """The rate, the errors, and the gap of the critic that was trained with the decoder.

        The published errors are `mse_unit`, of pixels on [0, 1], and the published perception is
        `critic_gap`, mean D(x) − mean D(x̂). `critic_distance` is the Wasserstein-1 distance behind
        it, corrected for the bias of the gradient penalty.
        """
        gap, weight = sums.mean("critic_gap"), self.recipe.critic.penalty_weight
        gap_error = sums.standard_error("critic_gap")
        bits = sum(layer.code.nominal_bits for layer in self.layers)
        errors = errors_summary(sums)
        return {
            "nominal_bpp": bits / (self.pixels.height * self.pixels.width),
            **errors,
            "mse_unit": errors["mse"] / PEAK_TO_PEAK**2,
            "mse_unit_standard_error": errors["mse_standard_error"] / PEAK_TO_PEAK**2,
            "critic_gap": gap,
            "critic_gap_standard_error": gap_error,
            "critic_distance": unpenalised_gap(gap, weight),
            "critic_distance_standard_error": gap_error * unpenalised_slope(gap, weight),
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

    def symbols(self) -> list[LayerSymbols]:
        return [
            LayerSymbols(layer.code.levels, layer.tables.entropies().tolist())
            for layer in self.coded_layers()
        ]

    def codec(self) -> UrdpCodec:
        return self._codec({self.every("decoder"): 1.0})

    def coding_networks(self) -> nn.ModuleDict:
        names = [name for layer in self.layers for name in (layer.encoder, layer.tables)]
        return nn.ModuleDict({name: self.every(name) for name in (*names, "decoder")})

    def mixed_codec(self, other: System, share: float) -> UrdpCodec:
        """The codec of (1 − a)·g(y) + a·g'(y) for this decoder g and the other's g'.

        Raises:
            InputError: the other decoder reads the streams of another encoder.
        """
        if not isinstance(other, UrdpSystem) or (
            layer_fingerprints(other.coded_layers(), other.pixels)
            != layer_fingerprints(self.coded_layers(), self.pixels)
        ):
            raise InputError(
                "the two runs have decoders of different encoders, so no stream can be shown"
                " between them"
            )
        return self._codec({self.every("decoder"): 1 - share, other.every("decoder"): share})

    def coded_layers(self) -> list[CodedLayer]:
        """The layers with their networks, as the codec takes them."""
        found = []
        for layer in self.layers:
            tables = self.every(layer.tables)
            assert isinstance(tables, LatentTables)
            found.append(CodedLayer(self.every(layer.encoder), tables, layer.code))
        return found

    def _codec(self, decoders: Mapping[nn.Module, float]) -> UrdpCodec:
        return UrdpCodec(self.coded_layers(), decoders, self.pixels)

    def _reconstructed(self, batch: Batch, draws: Draws) -> tuple[Tensor, Tensor]:
        """The images of a batch and their reconstructions, [B, C, H, W] on [0, 1]."""
        self.pixels.require(batch.images_BCHW)
        x_BCHW = self.to_unit(batch.images_BCHW)
        nets = nn.ModuleDict({layer.encoder: self.every(layer.encoder) for layer in self.layers})
        return x_BCHW, self.every("decoder")(self.channel(nets, x_BCHW, draws))


class EndToEnd(UrdpSystem):
    """Encoder, decoder and critic for one λ."""

    def __init__(self, recipe: EndToEndRecipe) -> None:
        sizes, layer = recipe.networks, Layer("encoder", "tables", coding.Code.of(recipe.code))
        nets = {**layer_networks(sizes, layer), **decoder_and_critic(sizes, [layer])}
        super().__init__(recipe, sizes, [layer], nets, {}, trains=("encoder", "decoder"))


class SecondStage(UrdpSystem):
    """A system that starts from the encoder of an end-to-end run."""

    recipe: UniversalRecipe | RefinementRecipe

    def load_frozen(self, parents: Mapping[str, Mapping[str, Tensor]]) -> None:
        load_base(self.frozen, parents["encoder"])

    def initialise(self, parents: Mapping[str, Mapping[str, Tensor]], supply: Supply) -> None:
        super().initialise(parents, supply)
        if self.recipe.critic.from_parent:
            self.networks["critic"].load_state_dict(part(parents["encoder"], "critic"))


class Universal(SecondStage):
    """A decoder and a critic for another λ on the encoder of an end-to-end run."""

    def __init__(self, recipe: UniversalRecipe, parent: EndToEndRecipe) -> None:
        sizes, base = parent.networks, base_layer(parent)
        nets, encoder = decoder_and_critic(sizes, [base]), layer_networks(sizes, base)
        self._drifting = recipe.encoder.statistics == "drifting"
        own, frozen = ({**encoder, **nets}, {}) if self._drifting else (nets, encoder)
        super().__init__(recipe, sizes, [base], own, frozen, trains=("decoder",))

    def initialise(self, parents: Mapping[str, Mapping[str, Tensor]], supply: Supply) -> None:
        super().initialise(parents, supply)
        if self._drifting:
            load_base(self.networks, parents["encoder"])


class Refinement(SecondStage):
    """A second encoder beside the frozen one of an end-to-end run; the decoder reads both codes."""

    def __init__(self, recipe: RefinementRecipe, parent: EndToEndRecipe) -> None:
        sizes = parent.networks
        base, fine = base_layer(parent), Layer("encoder", "tables", coding.Code.of(recipe.code))
        nets = {**layer_networks(sizes, fine), **decoder_and_critic(sizes, [base, fine])}
        frozen = layer_networks(sizes, base)
        super().__init__(recipe, sizes, [base, fine], nets, frozen, trains=("encoder", "decoder"))


class FreshCritic(UrdpSystem):
    """A critic of fixed budget for the images of a finished decoder, which measures perception."""

    def __init__(self, recipe: CriticRecipe, decoder: BaseRecipe, base: EndToEndRecipe) -> None:
        match decoder:
            case UniversalRecipe():
                layers = [base_layer(base)]
            case RefinementRecipe():
                fine = Layer("encoder", "tables", coding.Code.of(decoder.code))
                layers = [base_layer(base), fine]
            case _:
                layers = [Layer("encoder", "tables", coding.Code.of(base.code))]
        sizes = base.networks
        frozen: dict[str, nn.Module] = {}
        for layer in layers:
            frozen |= layer_networks(sizes, layer)
        nets = decoder_and_critic(sizes, layers)
        frozen["decoder"] = nets.pop("decoder")
        super().__init__(recipe, sizes, layers, nets, frozen, trains=())

    def load_frozen(self, parents: Mapping[str, Mapping[str, Tensor]]) -> None:
        own = parents["decoder"]
        for name, network in self.frozen.items():
            if not (state := part(own, name)):  # the encoder of a universal decoder's own parent
                state = part(parents["encoder"], name.removeprefix(_BASE))
            network.load_state_dict(state)

    def updates(self, progress: Progress) -> Sequence[Update]:
        """Every batch is for the critic."""
        return (Update("critic", fresh_batch=True),)

    def summary(self, sums: Sums) -> dict[str, float]:
        """The summary of the decoder, with the critic's figures under names of their own."""
        found = super().summary(sums)
        return {
            f"fresh_{name}" if name.startswith("critic_") else name: value
            for name, value in found.items()
        }


_BASE = "base_"


def base_layer(parent: EndToEndRecipe) -> Layer:
    """The layer of the encoder of an end-to-end run, as later stages name its networks."""
    return Layer(f"{_BASE}encoder", f"{_BASE}tables", coding.Code.of(parent.code))


def layer_networks(sizes: NetworksSection, layer: Layer) -> dict[str, nn.Module]:
    """A fresh encoder and fresh tables of a layer, under their names."""
    code = layer.code
    encoder = networks.encoder(sizes.image_size, sizes.channels, code.latents, sizes.width)
    return {layer.encoder: encoder, layer.tables: LatentTables(code)}


def decoder_and_critic(sizes: NetworksSection, layers: Sequence[Layer]) -> dict[str, nn.Module]:
    """A fresh decoder of all layers and a fresh critic, under their names."""
    side, channels, width = sizes.image_size, sizes.channels, sizes.decoder_width
    latents = sum(layer.code.latents for layer in layers)
    return {
        "decoder": networks.decoder(side, channels, latents, width),
        "critic": networks.critic(side, channels, width),
    }


def load_base(own: nn.ModuleDict, parent: Mapping[str, Tensor]) -> None:
    """Load the encoder and the tables of an end-to-end run where `own` has them."""
    for name, network in own.items():
        if name.startswith(_BASE):
            network.load_state_dict(part(parent, name.removeprefix(_BASE)))


def part(state: Mapping[str, Tensor], network: str) -> dict[str, Tensor]:
    """The state of one network within the state of all networks of a run."""
    prefix = f"{network}."
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


def _encoders(layers: Sequence[Layer]) -> tuple[str, ...]:
    return tuple(layer.encoder for layer in layers)
