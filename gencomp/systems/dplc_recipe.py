"""Recipes of distribution-preserving lossy compression (Tschannen et al., NeurIPS 2018).

Stage `generator` learns G as a Wasserstein autoencoder; stage `codec` learns encoder and latent map
on the frozen generator under a rate constraint.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gencomp.recipes.schema import BaseRecipe, Section


class GeneratorNetworks(Section):
    width: int = Field(64, ge=1, description="channels of the widest-resolution layer (ngf)")
    latent_dim: int = Field(128, ge=1, description="latent dimensions m (nz)")
    latent_batch_norm: bool = Field(True, description="batch norm on the encoder's output (bnz)")
    encoder_residual_blocks: int = Field(
        0, ge=0, description="residual blocks before F's last layer"
    )
    generator_residual_blocks: int = Field(
        0, ge=0, description="residual blocks after G's first layer"
    )


class WaeLoss(Section):
    mmd_weight: float = Field(100.0, ge=0, description="λ, weight of the MMD")
    prior_variance: float = Field(1.0, gt=0, description="σ² of the prior N(0, σ² I)")


class DplcGeneratorRecipe(BaseRecipe):
    """Stage 1 by WAE-MMD: minimise RMSE + λ·MMD over the encoder F and the generator G."""

    system: Literal["dplc"] = "dplc"
    stage: Literal["generator"] = "generator"
    networks: GeneratorNetworks = GeneratorNetworks()
    loss: WaeLoss = WaeLoss()


class CodecNetworks(Section):
    width: int = Field(64, ge=1, description="base width of the code encoder E")
    code_channels: int = Field(8, ge=1, le=1024, description="channels n of the 4×4 code")
    levels: int = Field(2, ge=2, le=256, description="quantiser levels L")
    residual_blocks: int = Field(2, ge=0, description="residual blocks in the latent map B")
    stochastic: bool = Field(True, description="B sees noise beside the code")
    latent_batch_norm: bool = Field(True, description="batch norm on B's output")


class CodecLoss(Section):
    mmd_weight: float = Field(300.0, ge=0, description="λ, weight of the MMD")


class CodecParents(Section):
    generator: str = Field(description="finished run of stage `generator`")


class DplcCodecRecipe(BaseRecipe):
    """Stage 2: minimise RMSE + λ·MMD over E and B; rate n·16·log2(L) bits per 64×64 image."""

    system: Literal["dplc"] = "dplc"
    stage: Literal["codec"] = "codec"
    parents: CodecParents
    networks: CodecNetworks = CodecNetworks()
    loss: CodecLoss = CodecLoss()

    def parent_runs(self) -> dict[str, str]:
        return {"generator": self.parents.generator}
