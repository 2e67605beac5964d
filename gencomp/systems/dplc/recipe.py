"""Recipes of distribution-preserving lossy compression: one model a stage.

A stage's recipe has the sections that its method uses and no others, so what does not belong
together cannot be written down. Optimizers come with the networks they move: `optimizer` for
encoder and generator, `critic.optimizer`, `latent_discriminator.optimizer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from gencomp.recipes.schema import BaseRecipe, OptimizerSection, Section

# Where latents come from: the encoder, the prior, or per image a random point between the two.
LatentSource = Literal["enc", "interp", "prior"]


class _Networks(Section):
    width: int = Field(64, ge=1, description="channels of the widest-resolution layer (ngf)")
    initialisation: Literal["dcgan", "he"] = Field(
        "dcgan", description="starting weights: N(0, 0.02²), or Kaiming-uniform (heinit)"
    )
    bn_mode: Literal["frozen", "batch"] = Field(
        "frozen",
        description="statistics of finished or frozen networks: re-estimated and fixed, or those of"
        " each batch as in the authors' code (codecs always use fixed ones)",
    )


class GeneratorNetworks(_Networks):
    latent_dim: int = Field(128, ge=1, description="latent dimensions m (nz)")
    generator_residual_blocks: int = Field(
        0, ge=0, description="residual blocks after G's first layer"
    )


class AutoencoderNetworks(GeneratorNetworks):
    latent_batch_norm: bool = Field(True, description="batch norm on the encoder's output (bnz)")
    encoder_residual_blocks: int = Field(
        0, ge=0, description="residual blocks before F's last layer"
    )


class CriticOptimizer(OptimizerSection):
    learning_rate: float = Field(1e-4, gt=0, description="base learning rate")


class CriticSection(Section):
    """The image critic f of Wasserstein GANs with gradient penalty."""

    steps: int = Field(5, ge=1, description="critic updates a step, each on a fresh batch")
    penalty_weight: float = Field(10.0, ge=0, description="λ_gp, weight of the gradient penalty")
    penalty_norm: Literal["per_pixel", "per_image"] = Field(
        "per_pixel",
        description="gradient norm: over the colours of each pixel as in the authors' code, or over"
        " the whole image as in Gulrajani et al.",
    )
    optimizer: CriticOptimizer = CriticOptimizer()


class MixedCriticSection(CriticSection):
    latents: LatentSource = Field("interp", description="latents of the fakes that f learns from")


class LatentDiscriminatorOptimizer(OptimizerSection):
    learning_rate: float = Field(5e-4, gt=0, description="base learning rate")


class LatentDiscriminatorSection(Section):
    """The discriminator Dz of latents, in place of the MMD.

    The authors' code divides its term by the batch size once more: their λ is batch_size times
    this weight.
    """

    weight: float = Field(0.0, ge=0, description="λ of the adversarial term; 0: there is no Dz")
    avb_trick: bool = Field(
        False, description="add log N(z; 0, σ² I) to the logits, so that Dz learns −log q(z)"
    )
    width: int = Field(512, ge=1, description="units of the hidden layers (ndf)")
    layers: int = Field(5, ge=1, description="linear layers (ndl)")
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
        description="λ_a, weight of the critic's score (with penalty_norm per_image: about 64 times"
        " as much)",
    )
    gen_latents: LatentSource = Field(
        "enc", description="latents of the fakes by which the critic moves G"
    )
    adversarial_to_encoder: bool = Field(
        False, description="let the critic's gradient pass the latent into the encoder (upencwgan)"
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
    adversarial_weight: float = Field(2.5e-5, ge=0, description="weight of the critic's score")
    adversarial_to_encoder: bool = Field(
        True, description="let the critic's gradient pass the latent into E and B"
    )


class DplcRecipe(BaseRecipe):
    """What all stages share."""

    system: Literal["dplc"] = "dplc"
    if TYPE_CHECKING:  # every stage has its own, after the sections that it reads first
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
    """What the three methods of stage 1 share."""

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
    """Stage 1 as Wasserstein++: the objective of the WAE and a critic on top."""

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
    code_channels: int = Field(8, ge=1, le=1024, description="channels n of the 4×4 code")
    levels: int = Field(2, ge=2, le=256, description="quantizer levels L")
    residual_blocks: int = Field(2, ge=0, description="residual blocks in the latent map B")
    latent_batch_norm: bool = Field(True, description="batch norm on B's output")


class CodecNetworks(CodeNetworks):
    stochastic: bool = Field(True, description="B sees noise beside the code")


class CodecParents(Section):
    generator: str = Field(description="finished run of stage wae, wgan_gp or wasserstein_pp")


# n and L of the code, at n·16·log2(L) bits per 64×64 image.
_RATE_KEYS = ("networks.code_channels", "networks.levels")


class CodecRecipe(DplcRecipe):
    """Stage 2: minimise RMSE + λ·MMD over E and B; rate n·16·log2(L) bits per 64×64 image."""

    RATE_KEYS: ClassVar[tuple[str, ...]] = _RATE_KEYS

    stage: Literal["codec"] = "codec"
    parents: CodecParents
    networks: CodecNetworks = CodecNetworks()
    loss: CodecLoss = CodecLoss()
    latent_discriminator: LatentDiscriminatorSection = LatentDiscriminatorSection()

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
    # The published conditional variance of GC is not 0: its decoder saw noise.
    stochastic: bool = Field(True, description="B sees noise beside the code")


class CaeRecipe(DplcRecipe):
    """Baseline, compressive autoencoder: RMSE over E, a deterministic B, and G, from scratch."""

    RATE_KEYS: ClassVar[tuple[str, ...]] = _RATE_KEYS

    stage: Literal["cae"] = "cae"
    networks: CaeNetworks = CaeNetworks()


class GcRecipe(DplcRecipe):
    """Baseline, generative compression: the autoencoder with a critic of its reconstructions."""

    RATE_KEYS: ClassVar[tuple[str, ...]] = _RATE_KEYS

    stage: Literal["gc"] = "gc"
    networks: GcNetworks = GcNetworks()
    loss: GcLoss = GcLoss()
    critic: CriticSection = CriticSection()


def _require_one_penalty(mmd_weight: float, discriminator: LatentDiscriminatorSection) -> None:
    if mmd_weight > 0 and discriminator.weight > 0:
        raise ValueError(
            f"loss.mmd_weight is {mmd_weight:g} and latent_discriminator.weight is"
            f" {discriminator.weight:g}, but one must be 0: Dz stands in place of the MMD"
        )
