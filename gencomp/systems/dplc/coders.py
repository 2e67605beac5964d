"""The systems with a code: the rate-constrained stage on a frozen generator, and the baselines."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gencomp import quantizer
from gencomp.coding.fixed_length import packed_bits
from gencomp.draws import Draws
from gencomp.networks import dplc as networks
from gencomp.networks.calibration import reestimate_statistics
from gencomp.sums import Sums
from gencomp.system import Batch, Supply
from gencomp.systems.common import pixels
from gencomp.systems.common.calibration import calibration_batches
from gencomp.systems.common.code_tables import CodeTables
from gencomp.systems.common.objectives import Objective
from gencomp.systems.dplc import parts
from gencomp.systems.dplc.base import (
    ReconstructingSystem,
    critic_objective,
    discriminator_objective,
    latent_discriminator,
)
from gencomp.systems.dplc.codec import DplcCodec
from gencomp.systems.dplc.generators import build_generator, prior_of
from gencomp.systems.dplc.objectives import Adversary, AutoencoderPhase, latent_penalty
from gencomp.systems.dplc.recipe import (
    CaeRecipe,
    CodecRecipe,
    CodeNetworks,
    GcRecipe,
    GeneratorRecipe,
)

_CODER = ("code_encoder", "latent_mapper")


class CodingSystem(ReconstructingSystem):
    """A system of E, B and G, which reconstructs x as G(B(quantise(E(x)), noise))."""

    sizes: CodeNetworks

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        objectives: Mapping[str, Objective],
        sizes: CodeNetworks,
        salt_bits: int = 0,
    ) -> None:
        self.sizes, self._salt_bits = sizes, salt_bits
        self._symbols = sizes.code_channels * networks.CODE_SIDE**2
        tables = CodeTables(self._symbols, sizes.levels)
        super().__init__({**nets, "code_tables": tables}, objectives, sizes.bn_mode)

    def summary(self, sums: Sums) -> dict[str, float]:
        bits = packed_bits(self._symbols, self.sizes.levels)
        return {"nominal_bpp": bits / networks.IMAGE_SIDE**2, **super().summary(sums)}

    def codec(self) -> DplcCodec:
        """The codec, with the statistics of `finalise` for any `bn_mode`: images decode alone."""
        return DplcCodec(self.coding_networks(), self.sizes.levels, self._salt_bits)

    def coding_networks(self) -> nn.ModuleDict:
        names = (*_CODER, "generator", "code_tables")
        return nn.ModuleDict({name: self.networks[name] for name in names})

    @torch.no_grad()
    def calibrate_coder(self, batches: list[tuple[Batch, Draws]]) -> None:
        """Re-estimate the batch statistics of E and then of B, and count the symbols.

        All of this is done over training images.
        """
        levels, cells = self.sizes.levels, quantizer.cells(self.sizes.levels)
        encoder, mapper = (self.networks[name] for name in _CODER)
        tables = self.networks["code_tables"]
        assert isinstance(mapper, networks.LatentMapper) and isinstance(tables, CodeTables)
        reestimate_statistics(encoder, (pixels.to_signed(b.images_BCHW) for b, _ in batches))
        encoder.eval()
        symbols = [
            quantizer.quantize_hard(encoder(pixels.to_signed(batch.images_BCHW)), cells)
            for batch, _ in batches
        ]
        tables.count(symbols)
        codes = (
            (
                quantizer.symbols_to_values(one, cells, dtype=parts.dtype_of(encoder)),
                parts.mapper_noise(mapper, levels, draws),
            )
            for one, (_, draws) in zip(symbols, batches, strict=True)
        )
        reestimate_statistics(mapper, codes)
        mapper.eval()


class RateConstrainedCodec(CodingSystem):
    """The system of stage 2, which trains E and B on the frozen G of a generator run."""

    def __init__(self, recipe: CodecRecipe, generator: GeneratorRecipe) -> None:
        self.sizes, discriminator = recipe.networks, recipe.latent_discriminator
        self.encode, self.prior = parts.coded_latent(self.sizes.levels), prior_of(generator)
        nets = {
            **build_coder(
                self.sizes, self.prior.latent_dim, recipe.networks.stochastic, self.prior.scale
            ),
            "generator": build_generator(generator.networks),
            **latent_discriminator(discriminator, self.prior),
        }
        penalty = latent_penalty(recipe.loss.mmd_weight, discriminator, self.prior)
        phase = AutoencoderPhase(
            nets, _CODER, self.encode, penalty, frozen_from_batch=self.sizes.bn_mode == "batch"
        )
        objectives = {
            **discriminator_objective(nets, _CODER, self.encode, penalty, discriminator),
            "codec": Objective(phase, recipe.optimizer),
        }
        super().__init__(nets, objectives, self.sizes, recipe.codec.salt_bits)

    def initialise(self, parents: Mapping[str, Mapping[str, Tensor]], supply: Supply) -> None:
        """Load the frozen generator; E and B keep their fresh weights."""
        prefix = "generator."
        state = {
            name.removeprefix(prefix): value
            for name, value in parents["generator"].items()
            if name.startswith(prefix)
        }
        self.networks["generator"].load_state_dict(state)

    def finalise(self, supply: Supply) -> None:
        """Re-estimate the batch statistics of E and B over training images; G keeps its own."""
        self.calibrate_coder(calibration_batches(supply))


class Baseline(CodingSystem):
    """A baseline, which trains E, B and G at once for one rate and without a prior.

    Without a critic it is CAE, and with a critic it is GC.
    """

    def __init__(self, recipe: CaeRecipe | GcRecipe) -> None:
        self.sizes = sizes = recipe.networks
        self.encode, self.prior = parts.coded_latent(sizes.levels), None
        stochastic = isinstance(recipe, GcRecipe) and recipe.networks.stochastic
        nets: dict[str, nn.Module] = {
            **build_coder(sizes, sizes.latent_dim, stochastic),
            "generator": build_generator(sizes),
        }
        trains = (*_CODER, "generator")
        objectives: dict[str, Objective] = {}
        adversary = None
        if isinstance(recipe, GcRecipe):
            nets["critic"] = networks.Critic(sizes.width, sizes.initialisation)
            objectives = critic_objective(nets, _CODER, self.encode, recipe.critic)
            adversary = Adversary(
                recipe.loss.adversarial_weight, "enc", None, recipe.loss.adversarial_to_encoder
            )
        phase = AutoencoderPhase(nets, trains, self.encode, adversary=adversary)
        objectives["codec"] = Objective(phase, recipe.optimizer)
        salt_bits = recipe.codec.salt_bits if isinstance(recipe, GcRecipe) else 0
        super().__init__(nets, objectives, sizes, salt_bits)

    def finalise(self, supply: Supply) -> None:
        """Re-estimate the batch statistics of E, B and G, in this order, over training images."""
        batches = calibration_batches(supply)
        self.calibrate_coder(batches)
        latents = (
            self.encode(self.networks, pixels.to_signed(batch.images_BCHW), draws)
            for batch, draws in batches
        )
        reestimate_statistics(self.networks["generator"], latents)


def build_coder(
    sizes: CodeNetworks, latent_dim: int, stochastic: bool, latent_scale: float = 1.0
) -> dict[str, nn.Module]:
    """The networks E and B under their names.

    Raises:
        InputError: there are more code channels than latent dimensions.
    """
    encoder = networks.CodeEncoder(sizes.width, sizes.code_channels, sizes.initialisation)
    mapper = networks.LatentMapper(
        sizes.width,
        latent_dim,
        sizes.code_channels,
        sizes.residual_blocks,
        sizes.latent_batch_norm,
        stochastic,
        latent_scale,
        sizes.initialisation,
    )
    return dict(zip(_CODER, (encoder, mapper), strict=True))
