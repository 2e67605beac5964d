"""The recipes of models whose latents are sent by relative entropy coding, one for each stage."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gencomp.recipes.schema import BaseRecipe, OptimizerSection, Section
from gencomp.systems.irec.writing import CodecSection

Distortion = Literal["mse", "ms_ssim"]

_Decay = Annotated[float, Field(ge=0, lt=1)]


class RvaeNetworks(Section):
    blocks: int = Field(24, ge=1, le=64, description="number of layers of latents")
    deterministic: int = Field(160, ge=1, description="number of channels of the features")
    stochastic: int = Field(32, ge=1, description="number of channels of the latents of each layer")


class LikelihoodSection(Section):
    """Values are discretised logistic with one learnt scale, on images from -1/2 to 1/2."""

    scale: float = Field(1.0, gt=0, description="scale of the logistic at the start")


class WarmUpSection(Section):
    warm_up_steps: int | None = Field(
        None,
        ge=1,
        description="number of steps over which the weight of the KL divergence grows from 0 to 1;"
        " null for 1 from the start",
    )


class RvaeLoss(WarmUpSection):
    free_bits: float = Field(
        0.1,
        ge=0,
        description="nats that each channel of a layer may cost, as the mean over the batch,"
        " without a gain from costing less; evaluations count all nats",
    )


class RvaeOptimizer(OptimizerSection):
    """Adamax with a multi-step decay of the learning rate."""

    learning_rate: float = Field(1e-3, gt=0, description="base learning rate")
    betas: tuple[_Decay, _Decay] = Field(
        (0.9, 0.999), description="decay rates of Adamax's moment and of its largest gradient"
    )


class LossyNetworks(Section):
    filters: int = Field(ge=1, description="number of channels of features and of their latents")
    posterior: Literal["gaussian", "uniform"] = Field(
        "gaussian",
        description="kind of the posterior: gaussian has a mean and a scale for each latent, and"
        " uniform is an interval of width 1 about the mean, for universal quantization",
    )


class TwoLevelNetworks(LossyNetworks):
    filters: int = Field(
        196, ge=1, description="number of channels of features and of the latents at a 16th"
    )
    hyper_filters: int = Field(
        128, ge=1, description="number of channels of the latents at a 64th of the height and width"
    )


class OneLevelNetworks(LossyNetworks):
    filters: int = Field(192, ge=1, description="number of channels of features and of latents")


class LossyLoss(WarmUpSection):
    distortion: Distortion = Field(
        "mse",
        description="distortion: mse is of values on 0 to 255, and ms_ssim is 255 (1 - MS-SSIM)"
        " with an exponent of 1 for every scale, as published",
    )
    distortion_weight: float = Field(
        0.01, gt=0, description="λ, weight of the distortion beside the rate in bits per pixel"
    )


class LossyOptimizer(OptimizerSection):
    learning_rate: float = Field(1e-4, gt=0, description="base learning rate")
    betas: tuple[_Decay, _Decay] = Field(
        (0.9, 0.999), description="decay rates of Adam's two moments"
    )
    max_gradient_norm: float | None = Field(
        None,
        gt=0,
        description="longer gradients of all weights together are scaled down to this norm; null"
        " leaves them, as published",
    )


class IrecRecipe(BaseRecipe):
    """The parts of a recipe that all stages share."""

    system: Literal["irec"] = "irec"
    codec: CodecSection = CodecSection()


class RvaeRecipe(IrecRecipe):
    """Train a lossless model: maximise the evidence lower bound, with free bits."""

    stage: Literal["rvae"] = "rvae"
    networks: RvaeNetworks = RvaeNetworks()
    likelihood: LikelihoodSection = LikelihoodSection()
    loss: RvaeLoss = RvaeLoss()
    optimizer: RvaeOptimizer = RvaeOptimizer()


class LossyRecipe(IrecRecipe):
    """The parts of a recipe that the lossy stages share."""

    RATE_KEYS: ClassVar[tuple[str, ...]] = ("loss.distortion_weight",)

    networks: LossyNetworks
    loss: LossyLoss = LossyLoss()
    optimizer: LossyOptimizer = LossyOptimizer()


class TwoLevelRecipe(LossyRecipe):
    """Train a lossy model with two layers of latents for one λ."""

    stage: Literal["two_level"] = "two_level"
    networks: TwoLevelNetworks = TwoLevelNetworks()


class OneLevelRecipe(LossyRecipe):
    """Train a lossy model with a single layer of latents for one λ."""

    stage: Literal["one_level"] = "one_level"
    networks: OneLevelNetworks = OneLevelNetworks()
