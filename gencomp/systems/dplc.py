"""Distribution-preserving lossy compression (Tschannen, Agustsson, Lucic, NeurIPS 2018).

Stage `generator` (section 3.1 of the paper, WAE-MMD): encoder F and generator G minimise

    RMSE(G(F(x)), x) + λ·MMD(F(x), N(0, σ² I)).

Stage `codec`: G is frozen; the code encoder E (which ends in a quantiser) and the latent map B,
which sees the code and noise, minimise the same objective with B(E(x), noise) in place of F(x).
Since B's output keeps the prior's distribution at every rate, reconstructions keep the distribution
of G's samples.

Images are mapped to [−1, 1]; MSE is on that scale, PSNR = 10·log10(4/MSE).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gencomp import quantizer
from gencomp.coding.fixed_length import packed_bits
from gencomp.draws import Draws
from gencomp.losses import mmd, rmse
from gencomp.metrics import Sums
from gencomp.networks import dplc as networks
from gencomp.networks.calibration import reestimate_statistics
from gencomp.recipes.schema import OptimizerSection
from gencomp.system import Batch, LatentDecoder, Phase, PhaseLoss, Progress, Supply, System, Update
from gencomp.systems.dplc_codec import DplcCodec
from gencomp.systems.dplc_recipe import DplcCodecRecipe, DplcGeneratorRecipe

# Samples from which batch statistics are estimated once weights are final.
_CALIBRATION_SAMPLES = 2048


def to_signed(images_BCHW: Tensor) -> Tensor:
    """uint8 -> float32 in [−1, 1]."""
    return images_BCHW.float() / 127.5 - 1


def to_bytes(x_BCHW: Tensor) -> Tensor:
    """[−1, 1] -> uint8, rounded."""
    return ((x_BCHW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


class WaePhase(Phase):
    """RMSE + λ·MMD over F and G."""

    def __init__(self, recipe: DplcGeneratorRecipe, nets: Mapping[str, nn.Module]) -> None:
        super().__init__(nets, trains=("encoder", "generator"))
        self.recipe = recipe

    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        x_BCHW = to_signed(batch.images_BCHW)
        z_BM11 = self.networks["encoder"](x_BCHW)
        x_hat_BCHW = self.networks["generator"](z_BM11)
        variance = self.recipe.loss.prior_variance
        prior_BM = prior_samples(draws, self.recipe.networks.latent_dim, variance)
        return weighted(
            rmse(x_hat_BCHW, x_BCHW), mmd(z_BM11, prior_BM, variance), self.recipe.loss.mmd_weight
        )


class WaeGenerator(System):
    """Stage `generator`."""

    def __init__(self, recipe: DplcGeneratorRecipe) -> None:
        self.recipe = recipe
        sizes = recipe.networks
        self.networks = nn.ModuleDict(
            {
                "encoder": networks.Encoder(
                    sizes.width,
                    sizes.latent_dim,
                    sizes.encoder_residual_blocks,
                    sizes.latent_batch_norm,
                ),
                "generator": build_generator(recipe),
            }
        )
        self.phases: dict[str, Phase] = {"wae": WaePhase(recipe, dict(self.networks.items()))}

    def updates(self, progress: Progress) -> Sequence[Update]:
        return (Update("wae", fresh_batch=True),)

    def optimizer(self, phase: str) -> torch.optim.Optimizer:
        return adam(self.phases[phase], self.recipe.optimizer)

    def learning_rates(self, phase: str, progress: Progress) -> Sequence[float]:
        return (self.recipe.optimizer.rate_at(progress.epoch),)

    def initialise(self, parents: Mapping[str, Mapping[str, Tensor]], supply: Supply) -> None:
        pass

    def finalise(self, supply: Supply) -> None:
        """Batch statistics of the final weights: F's over training images, G's over prior samples.

        From here on both run in evaluation mode: an image must decode alone.
        """
        batches = calibration_batches(supply)
        latent_dim, variance = self.recipe.networks.latent_dim, self.recipe.loss.prior_variance
        reestimate_statistics(
            self.networks["encoder"], (to_signed(b.images_BCHW) for b, _ in batches)
        )
        latents = (
            prior_samples(draws, latent_dim, variance)[:, :, None, None] for _, draws in batches
        )
        reestimate_statistics(self.networks["generator"], latents)

    def evaluate(self, batch: Batch, draws: Draws) -> Sums:
        x_BCHW = to_signed(batch.images_BCHW)
        z_BM11 = self.networks["encoder"](x_BCHW)
        variance = self.recipe.loss.prior_variance
        prior_BM = prior_samples(draws, self.recipe.networks.latent_dim, variance)
        return reconstruction_sums(
            x_BCHW, self.networks["generator"](z_BM11), z_BM11, prior_BM, variance, draws
        )

    def summary(self, sums: Sums) -> dict[str, float]:
        return reconstruction_summary(sums)

    def pictures(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        latent_dim, variance = self.recipe.networks.latent_dim, self.recipe.loss.prior_variance
        generator = self.networks["generator"]
        reconstructions = generator(self.networks["encoder"](to_signed(batch.images_BCHW)))
        samples = generator(prior_samples(draws, latent_dim, variance)[:, :, None, None])
        return {
            "originals": batch.images_BCHW,
            "reconstructions": to_bytes(reconstructions),
            "samples from the prior": to_bytes(samples),
        }

    def latent_decoder(self) -> LatentDecoder:
        return latent_decoder(self.networks["generator"], self.recipe)


class CodecPhase(Phase):
    """RMSE + λ·MMD over E and B, through the frozen G."""

    def __init__(
        self, recipe: DplcCodecRecipe, prior_variance: float, nets: Mapping[str, nn.Module]
    ) -> None:
        super().__init__(nets, trains=("code_encoder", "latent_mapper"), evaluates=("generator",))
        self.recipe = recipe
        self.prior_variance = prior_variance

    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        x_BCHW = to_signed(batch.images_BCHW)
        z_BM11 = mapped_latent(self.networks, x_BCHW, self.recipe.networks.levels, draws)
        x_hat_BCHW = self.networks["generator"](z_BM11)
        prior_BM = prior_samples(draws, z_BM11.shape[1], self.prior_variance)
        return weighted(
            rmse(x_hat_BCHW, x_BCHW),
            mmd(z_BM11, prior_BM, self.prior_variance),
            self.recipe.loss.mmd_weight,
        )


class RateConstrainedCodec(System):
    """Stage `codec`."""

    def __init__(self, recipe: DplcCodecRecipe, generator: DplcGeneratorRecipe) -> None:
        self.recipe, self.generator_recipe = recipe, generator
        sizes, latent_dim = recipe.networks, generator.networks.latent_dim
        self.networks = nn.ModuleDict(
            {
                "code_encoder": networks.CodeEncoder(sizes.width, sizes.code_channels),
                "latent_mapper": networks.LatentMapper(
                    sizes.width,
                    latent_dim,
                    sizes.code_channels,
                    sizes.residual_blocks,
                    sizes.latent_batch_norm,
                    sizes.stochastic,
                ),
                "generator": build_generator(generator),
            }
        )
        self.prior_variance = generator.loss.prior_variance
        self.phases: dict[str, Phase] = {
            "codec": CodecPhase(recipe, self.prior_variance, dict(self.networks.items()))
        }

    def updates(self, progress: Progress) -> Sequence[Update]:
        return (Update("codec", fresh_batch=True),)

    def optimizer(self, phase: str) -> torch.optim.Optimizer:
        return adam(self.phases[phase], self.recipe.optimizer)

    def learning_rates(self, phase: str, progress: Progress) -> Sequence[float]:
        return (self.recipe.optimizer.rate_at(progress.epoch),)

    def initialise(self, parents: Mapping[str, Mapping[str, Tensor]], supply: Supply) -> None:
        """Load the frozen generator; E and B start fresh."""
        prefix = "generator."
        state = {
            name.removeprefix(prefix): value
            for name, value in parents["generator"].items()
            if name.startswith(prefix)
        }
        self.networks["generator"].load_state_dict(state)

    def finalise(self, supply: Supply) -> None:
        """Batch statistics of the final E and B over training images."""
        batches = calibration_batches(supply)
        levels = self.recipe.networks.levels
        encoder, mapper = self.networks["code_encoder"], self.networks["latent_mapper"]
        assert isinstance(mapper, networks.LatentMapper)
        reestimate_statistics(encoder, (to_signed(batch.images_BCHW) for batch, _ in batches))
        encoder.eval()
        codes = (
            (
                quantizer.quantize(encoder(to_signed(batch.images_BCHW)), levels),
                mapper_noise(mapper, levels, draws),
            )
            for batch, draws in batches
        )
        reestimate_statistics(mapper, codes)

    def evaluate(self, batch: Batch, draws: Draws) -> Sums:
        x_BCHW = to_signed(batch.images_BCHW)
        z_BM11 = mapped_latent(self.networks, x_BCHW, self.recipe.networks.levels, draws)
        prior_BM = prior_samples(draws, z_BM11.shape[1], self.prior_variance)
        x_hat_BCHW = self.networks["generator"](z_BM11)
        return reconstruction_sums(x_BCHW, x_hat_BCHW, z_BM11, prior_BM, self.prior_variance, draws)

    def summary(self, sums: Sums) -> dict[str, float]:
        sizes = self.recipe.networks
        bits = packed_bits(sizes.code_channels * networks.CODE_SIDE**2, sizes.levels)
        return {"bpp": bits / networks.IMAGE_SIDE**2, **reconstruction_summary(sums)}

    def pictures(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        z_BM11 = mapped_latent(
            self.networks, to_signed(batch.images_BCHW), self.recipe.networks.levels, draws
        )
        return {
            "originals": batch.images_BCHW,
            "reconstructions": to_bytes(self.networks["generator"](z_BM11)),
        }

    def codec(self) -> DplcCodec:
        return DplcCodec(self.networks, self.recipe.networks.levels)

    def latent_decoder(self) -> LatentDecoder:
        return latent_decoder(self.networks["generator"], self.generator_recipe)


def build_generator(recipe: DplcGeneratorRecipe) -> networks.Generator:
    sizes = recipe.networks
    return networks.Generator(sizes.width, sizes.latent_dim, sizes.generator_residual_blocks)


def adam(phase: Phase, settings: OptimizerSection) -> torch.optim.Adam:
    return torch.optim.Adam(
        phase.trained_parameters(),
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
    )


def weighted(reconstruction: Tensor, discrepancy: Tensor, mmd_weight: float) -> PhaseLoss:
    terms = {"rmse": reconstruction.detach(), "mmd": discrepancy.detach()}
    return PhaseLoss(reconstruction + mmd_weight * discrepancy, terms)


def mapped_latent(nets: nn.ModuleDict, x_BCHW: Tensor, levels: int, draws: Draws) -> Tensor:
    """B(E(x), noise), noise uniform on the half cell around 0; [B, m, 1, 1]."""
    code_BCHW = quantizer.quantize(nets["code_encoder"](x_BCHW), levels)
    mapper = nets["latent_mapper"]
    assert isinstance(mapper, networks.LatentMapper)
    return mapper(code_BCHW, mapper_noise(mapper, levels, draws))


def mapper_noise(mapper: networks.LatentMapper, levels: int, draws: Draws) -> Tensor:
    """B's noise for this rank's rows."""
    half = quantizer.half_cell(levels)
    return draws.uniform("noise", -half, half, *mapper.noise_shape)


def prior_samples(draws: Draws, latent_dim: int, variance: float) -> Tensor:
    """[B, m] samples of N(0, σ² I)."""
    return draws.normal("prior", latent_dim) * math.sqrt(variance)


def calibration_batches(supply: Supply) -> list[tuple[Batch, Draws]]:
    """Enough of the supply to estimate batch statistics from."""
    batches = []
    samples = 0
    while samples < _CALIBRATION_SAMPLES:
        batches.append(next(supply))
        samples += batches[-1][1].batch_size
    return batches


def reconstruction_sums(
    x_BCHW: Tensor,
    x_hat_BCHW: Tensor,
    z_BM11: Tensor,
    prior_BM: Tensor,
    variance: float,
    draws: Draws,
) -> Sums:
    """MSE of each image, and the batch's MMD where the global batch has two images or more."""
    sums = Sums()
    sums.add("mse", (x_hat_BCHW.double() - x_BCHW.double()).square().flatten(1).mean(1))
    if draws.batch_size >= 2:
        sums.add_global("mmd", mmd(z_BM11, prior_BM, variance))
    return sums


def reconstruction_summary(sums: Sums) -> dict[str, float]:
    mse = sums.mean("mse")
    return {
        "mse": mse,
        "mse_standard_error": sums.standard_error("mse"),
        "psnr": 10 * math.log10(4 / mse),
        # A single image has none.
        **({"mmd": sums.mean("mmd")} if "mmd" in sums.values else {}),
        "images": sums.count("mse"),
    }


def latent_decoder(generator: nn.Module, recipe: DplcGeneratorRecipe) -> LatentDecoder:
    generator = generator.eval().requires_grad_(False)
    return LatentDecoder(
        decode=lambda z_BK: generator(z_BK[:, :, None, None]).flatten(1),
        target=lambda images_BCHW: to_signed(images_BCHW).flatten(1),
        latent_dim=recipe.networks.latent_dim,
        prior_variance=recipe.loss.prior_variance,
    )
