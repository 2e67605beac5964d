"""The recipes of distribution-preserving lossy compression, one model for each stage.

The recipe of a stage has only the sections that its method uses, so settings that do not belong
together cannot be combined. Each optimizer belongs to the networks that it moves: `optimizer` to
encoder and generator, `critic.optimizer` and `latent_discriminator.optimizer` to theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from gencomp.recipes.schema import BaseRecipe, OptimizerSection, Section

# The source of latents: the encoder, the prior, or a random point between both for each image.
LatentSource = Literal["enc", "interp", "prior"]


class _Networks(Section):
    width: int = Field(
        64, ge=1, description="number of channels of the layers at the highest resolution (ngf)"
    )
    initialisation: Literal["dcgan", "he"] = Field(
        "dcgan",
        description="distribution of the starting weights: dcgan is N(0, 0.02²), he is"
        " Kaiming-uniform (heinit)",
    )
    bn_mode: Literal["frozen", "batch"] = Field(
        "frozen",
        description="batch-norm statistics of finished or frozen networks: frozen fixes"
        " re-estimated ones, batch takes those of each batch as in the authors' code (codecs always"
        " use fixed ones)",
    )


class GeneratorNetworks(_Networks):
    latent_dim: int = Field(128, ge=1, description="number m of latent dimensions (nz)")
    generator_residual_blocks: int = Field(
        0, ge=0, description="number of residual blocks after G's first layer"
    )


class AutoencoderNetworks(GeneratorNetworks):
    latent_batch_norm: bool = Field(
        True, description="apply batch norm to the encoder's output (bnz)"
    )
    encoder_residual_blocks: int = Field(
        0, ge=0, description="number of residual blocks before F's last layer"
    )


class CriticOptimizer(OptimizerSection):
    learning_rate: float = Field(1e-4, gt=0, description="base learning rate")


class CriticSection(Section):
    """The image critic f of Wasserstein GANs with gradient penalty."""

    steps: int = Field(
        5, ge=1, description="number of critic updates in a step, each on a fresh batch"
    )
    penalty_weight: float = Field(10.0, ge=0, description="λ_gp, weight of the gradient penalty")
    penalty_norm: Literal["per_pixel", "per_image"] = Field(
        "per_pixel",
        description="norm of the gradient: per_pixel is over the colours of each pixel as in the"
        " authors' code, per_image over the whole image as in Gulrajani et al.",
    )
    optimizer: CriticOptimizer = CriticOptimizer()


class MixedCriticSection(CriticSection):
    latents: LatentSource = Field(
        "interp", description="source of the latents of the fakes on which f is trained"
    )


class LatentDiscriminatorOptimizer(OptimizerSection):
    learning_rate: float = Field(5e-4, gt=0, description="base learning rate")


class LatentDiscriminatorSection(Section):
    """The latent discriminator Dz, which takes the place of the MMD.

    The authors' code divides its term by the batch size once more, so their λ is batch_size times
    this weight.
    """

    weight: float = Field(
        0.0, ge=0, description="λ, weight of the adversarial term; with 0 there is no Dz"
    )
    avb_trick: bool = Field(
        False, description="add log N(z; 0, σ² I) to the logits, so that Dz learns −log q(z)"
    )
    width: int = Field(512, ge=1, description="number of units of each hidden layer (ndf)")
    layers: int = Field(5, ge=1, description="number of linear layers (ndl)")
    optimizer: LatentDiscriminatorOptimizer = LatentDiscriminatorOptimizer()


class GeneratorLoss(Section):
    prior_variance: float = Field(1.0, gt=0, description="σ² of the prior N(0, σ² I)")


class WaeLoss(GeneratorLoss):
    mmd_weight: float = Field(100.0, ge=0, description="λ, weight of the MMD")


class WganGpLoss(GeneratorLoss):
    adversarial_weight: float = Field(1.0, gt=0, description="λ_a, weight of the critic's score")


class WassersteinPpLoss(GeneratorLoss):
    reconstruction_weight: float = Field(1.0, ge=0, description="weight of the RMSE")
    mmd_weight: float = Field(100.0, ge=0, description="λ, weight of the MMD")
    adversarial_weight: float = Field(
        2.5e-5,
        ge=0,
        description="λ_a, weight of the critic's score; penalty_norm per_image needs about 64 times"
        " as much",
    )
    gen_latents: LatentSource = Field(
        "enc",
        description="source of the latents of the fakes on which G is trained against the critic",
    )
    adversarial_to_encoder: bool = Field(
        False,
        description="let the critic's gradient flow through the latents into the encoder"
        " (upencwgan)",
    )

    @model_validator(mode="after")
    def _encoder_is_asked(self) -> WassersteinPpLoss:
        if self.adversarial_to_encoder and self.gen_latents == "prior":
            raise ValueError(
                "adversarial_to_encoder is true, but with gen_latents prior no latent comes from"
                " the encoder; allowed are enc and interp"
            )
        return self


class CodecLoss(Section):
    mmd_weight: float = Field(300.0, ge=0, description="λ, weight of the MMD")


class GcLoss(Section):
    adversarial_weight: float = Field(2.5e-5, ge=0, description="λ_a, weight of the critic's score")
    adversarial_to_encoder: bool = Field(
        True, description="let the critic's gradient flow through the latents into E and B"
    )


class DplcRecipe(BaseRecipe):
    """The parts of a recipe that all stages share."""

    system: Literal["dplc"] = "dplc"
    if TYPE_CHECKING:  # every stage declares its own, after the sections that come first in it
        networks: _Networks

    def batch_statistics(self) -> str:
        discriminator = getattr(self, "latent_discriminator", None)
        if discriminator is not None and discriminator.weight == 0:
            return "the MMD and the statistics of batch norm"
        return "the statistics of batch norm"

    def evaluation_statistics(self) -> str:
        if self.networks.bn_mode == "batch":
            return "the batch statistics of networks.bn_mode batch"
        return ""


class GeneratorRecipe(DplcRecipe):
    """The parts of a recipe that the three methods of stage 1 share."""

    networks: GeneratorNetworks
    loss: GeneratorLoss


class WaeRecipe(GeneratorRecipe):
    """Stage 1 as a Wasserstein autoencoder: RMSE + λ·MMD over F and G."""

    stage: Literal["wae"] = "wae"
    networks: AutoencoderNetworks = AutoencoderNetworks()
    loss: WaeLoss = WaeLoss()
    latent_discriminator: LatentDiscriminatorSection = LatentDiscriminatorSection()

    @model_validator(mode="after")
    def _one_latent_penalty(self) -> WaeRecipe:
        _require_one_penalty(self.loss.mmd_weight, self.latent_discriminator)
        return self


class WganGpRecipe(GeneratorRecipe):
    """Stage 1 as a Wasserstein GAN with gradient penalty, without an encoder."""

    stage: Literal["wgan_gp"] = "wgan_gp"
    networks: GeneratorNetworks = GeneratorNetworks()
    loss: WganGpLoss = WganGpLoss()
    critic: CriticSection = CriticSection()


class WassersteinPpRecipe(GeneratorRecipe):
    """Stage 1 as Wasserstein++: the objective of the WAE and a critic."""

    stage: Literal["wasserstein_pp"] = "wasserstein_pp"
    networks: AutoencoderNetworks = AutoencoderNetworks()
    loss: WassersteinPpLoss = WassersteinPpLoss()
    critic: MixedCriticSection = MixedCriticSection()
    latent_discriminator: LatentDiscriminatorSection = LatentDiscriminatorSection()

    @model_validator(mode="after")
    def _one_latent_penalty(self) -> WassersteinPpRecipe:
        _require_one_penalty(self.loss.mmd_weight, self.latent_discriminator)
        return self


class CodeNetworks(_Networks):
    code_channels: int = Field(8, ge=1, le=1024, description="number n of channels of the 4×4 code")
    levels: int = Field(2, ge=2, le=256, description="number L of levels of the quantizer")
    residual_blocks: int = Field(
        2, ge=0, description="number of residual blocks in the latent map B"
    )
    latent_batch_norm: bool = Field(True, description="apply batch norm to B's output")


class CodecNetworks(CodeNetworks):
    stochastic: bool = Field(True, description="give B noise beside the code")


class FilesSection(Section):
    """What the codec writes into a file beside the code."""

    salt_bits: int = Field(
        8,
        ge=0,
        le=24,
        description="number of bits of each picture's salt, a key of the decoder's noise: pictures"
        " with equal codes are shown as different images, but one pair in 2^salt_bits; with 0 bits"
        " they are shown as equal images",
    )


class CodecParents(Section):
    generator: str = Field(
        description="directory of a finished run of stage wae, wgan_gp or wasserstein_pp"
    )


# The n and L of the code set its rate, n·16·log2(L) bits for each 64×64 image.
_RATE_KEYS = ("networks.code_channels", "networks.levels")


class CodecRecipe(DplcRecipe):
    """Stage 2: RMSE + λ·MMD over E and B, at a rate of n·16·log2(L) bits per 64×64 image."""

    RATE_KEYS: ClassVar[tuple[str, ...]] = _RATE_KEYS

    stage: Literal["codec"] = "codec"
    parents: CodecParents
    networks: CodecNetworks = CodecNetworks()
    loss: CodecLoss = CodecLoss()
    latent_discriminator: LatentDiscriminatorSection = LatentDiscriminatorSection()
    codec: FilesSection = FilesSection()

    @model_validator(mode="after")
    def _one_latent_penalty(self) -> CodecRecipe:
        _require_one_penalty(self.loss.mmd_weight, self.latent_discriminator)
        return self

    def parent_runs(self) -> dict[str, str]:
        return {"generator": self.parents.generator}


class CaeNetworks(GeneratorNetworks, CodeNetworks):
    @model_validator(mode="after")
    def _code_fits_the_latent(self) -> CaeNetworks:
        if self.code_channels > self.latent_dim:
            raise ValueError(
                f"code_channels is {self.code_channels}, allowed are 1 to latent_dim,"
                f" {self.latent_dim}"
            )
        return self


class GcNetworks(CaeNetworks):
    # The published conditional variance of GC is not 0, so its decoder had noise.
    stochastic: bool = Field(True, description="give B noise beside the code")


class CaeRecipe(DplcRecipe):
    """The baseline CAE, a compressive autoencoder: RMSE over E, a deterministic B and G."""

    RATE_KEYS: ClassVar[tuple[str, ...]] = _RATE_KEYS

    stage: Literal["cae"] = "cae"
    networks: CaeNetworks = CaeNetworks()


class GcRecipe(DplcRecipe):
    """The baseline GC, generative compression: an autoencoder with a critic of its images."""

    RATE_KEYS: ClassVar[tuple[str, ...]] = _RATE_KEYS

    stage: Literal["gc"] = "gc"
    networks: GcNetworks = GcNetworks()
    loss: GcLoss = GcLoss()
    critic: CriticSection = CriticSection()
    codec: FilesSection = FilesSection()


def _require_one_penalty(mmd_weight: float, discriminator: LatentDiscriminatorSection) -> None:
    if mmd_weight > 0 and discriminator.weight > 0:
        raise ValueError(
            f"loss.mmd_weight is {mmd_weight:g} and latent_discriminator.weight is"
            f" {discriminator.weight:g}, but one must be 0: Dz stands in place of the MMD"
        )
