"""The recipes of universal rate-distortion-perception codecs, one model for each stage."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from gencomp.recipes.schema import BaseRecipe, OptimizerSection, Section

Dither = Literal["shared", "private", "none"]
Gradient = Literal["soft", "identity", "noise"]

_Decay = Annotated[float, Field(ge=0, lt=1)]


class CodeSection(Section):
    """The code of one encoder: d latents, each quantized to L levels with dither."""

    latents: int = Field(3, ge=1, le=4096, description="number d of latents")
    levels: int = Field(3, ge=2, le=256, description="number L of levels of the quantizer")
    low: float = Field(-1.0, description="lowest centre of the quantizer, at most -1")
    high: float = Field(1.0, description="highest centre of the quantizer, at least 1")
    dither: Dither = Field(
        "shared",
        description="who knows the dither: shared is sender and receiver, private is the receiver"
        " alone, which adds it to the code, and none is no dither",
    )
    shared_bits: int | None = Field(
        None,
        ge=0,
        le=16,
        description="number k of bits of randomness that sender and receiver share for an image,"
        " which choose one of 2^k dithers; 0 is no dither, as dither none; null for a dither of its"
        " own for each image",
    )
    gradient: Gradient = Field(
        "soft",
        description="gradient of the quantizer: soft is that of a softmax over the centres as in"
        " the authors' code, identity is 1, and noise adds uniform noise instead of quantizing in"
        " training, which has the same distribution and the exact gradient",
    )
    sharpness: float = Field(
        1.0,
        gt=0,
        description="sharpness of the softmax of gradient soft; the authors use 1 for MNIST and 2/L"
        " for SVHN",
    )

    @model_validator(mode="after")
    def _never_overloads(self) -> CodeSection:
        if self.low > -1 or self.high < 1:
            raise ValueError(
                f"the centres run from {self.low:g} to {self.high:g}, but the latents fill -1 to 1:"
                " the quantizer would overload, and its error would depend on the image; allowed"
                " are low <= -1 and high >= 1"
            )
        return self

    @model_validator(mode="after")
    def _something_is_shared(self) -> CodeSection:
        if self.shared_bits is not None and self.dither != "shared":
            raise ValueError(
                f"shared_bits is {self.shared_bits}, but with dither {self.dither} nothing is"
                " shared; allowed is null"
            )
        return self

    @model_validator(mode="after")
    def _noise_is_the_channel(self) -> CodeSection:
        if self.gradient == "noise" and (self.dither != "shared" or self.shared_bits is not None):
            raise ValueError(
                "gradient is noise, but the quantizer's error is uniform noise only with dither"
                " shared and shared_bits null; allowed are soft and identity"
            )
        return self


class NetworksSection(Section):
    image_size: Literal[28, 32, 64] = Field(
        28,
        description="height and width of the images in pixels; 28 has the published networks of"
        " MNIST, 32 those of SVHN, and 64 is grown from those of SVHN",
    )
    channels: Literal[1, 3] = Field(
        1,
        description="number of colour channels; 1 is for grey images, whose three channels are"
        " equal",
    )
    width: float = Field(1.0, gt=0, description="factor of the widths of the encoder")
    decoder_width: float = Field(
        1.0, gt=0, description="factor of the widths of decoder and critic; 1 is published"
    )


class LossSection(Section):
    perception_weight: float = Field(
        0.0,
        ge=0,
        description="λ, weight of the critic's score beside the mean squared error of pixels on"
        " [0, 1]",
    )


class EndToEndLoss(LossSection):
    start_weight: float = Field(
        5e-4,
        ge=0,
        description="weight of the critic's score in the first epoch of a run whose"
        " perception_weight is 0, which gives the critic a start",
    )
    start_epochs: int = Field(
        12, ge=1, description="number of epochs over which start_weight falls to 0 in equal steps"
    )


class CriticOptimizer(OptimizerSection):
    learning_rate: float = Field(2e-4, gt=0, description="base learning rate")
    betas: tuple[_Decay, _Decay] = Field(
        (0.5, 0.9), description="decay rates of Adam's two moments"
    )


class CodecOptimizer(OptimizerSection):
    learning_rate: float = Field(1e-2, gt=0, description="base learning rate")
    betas: tuple[_Decay, _Decay] = Field(
        (0.5, 0.9), description="decay rates of Adam's two moments"
    )


class CriticSection(Section):
    """The critic D of a Wasserstein GAN with gradient penalty."""

    steps: int = Field(
        1, ge=1, description="number of batches for the critic before each batch for the decoder"
    )
    penalty_weight: float = Field(10.0, gt=0, description="λ_gp, weight of the gradient penalty")
    optimizer: CriticOptimizer = CriticOptimizer()


class ParentCriticSection(CriticSection):
    from_parent: bool = Field(
        True, description="start from the weights of the critic of the encoder's run"
    )


class EncoderParents(Section):
    encoder: str = Field(
        description="directory of a finished run of stage end_to_end, whose encoder is frozen"
    )


class FrozenEncoderSection(Section):
    statistics: Literal["frozen", "drifting"] = Field(
        "frozen",
        description="batch-norm statistics of the frozen encoder: frozen keeps those of its run,"
        " drifting takes those of each batch and moves the running ones as the authors' code does,"
        " so that the encoder is another one afterwards",
    )


class UrdpRecipe(BaseRecipe):
    """The parts of a recipe that all stages share."""

    system: Literal["urdp"] = "urdp"
    critic: CriticSection


class CodecRecipe(UrdpRecipe):
    """The parts of a recipe that the stages with a codec share."""

    loss: LossSection
    optimizer: CodecOptimizer = CodecOptimizer()

    def batch_statistics(self) -> str:
        return "the statistics of batch norm"


class EndToEndRecipe(CodecRecipe):
    """Train an encoder, a decoder and a critic for one perception weight λ."""

    RATE_KEYS: ClassVar[tuple[str, ...]] = ("code.latents", "code.levels")

    stage: Literal["end_to_end"] = "end_to_end"
    networks: NetworksSection = NetworksSection()
    code: CodeSection = CodeSection()
    loss: EndToEndLoss = EndToEndLoss()
    critic: CriticSection = CriticSection()


class UniversalRecipe(CodecRecipe):
    """Train a decoder and a critic for another λ on the frozen encoder of an end-to-end run."""

    stage: Literal["universal"] = "universal"
    parents: EncoderParents
    loss: LossSection = LossSection()
    critic: ParentCriticSection = ParentCriticSection()
    encoder: FrozenEncoderSection = FrozenEncoderSection()

    def parent_runs(self) -> dict[str, str]:
        return {"encoder": self.parents.encoder}


class RefinementRecipe(CodecRecipe):
    """Train a second encoder beside a frozen one, and a decoder that reads both codes."""

    RATE_KEYS: ClassVar[tuple[str, ...]] = ("code.latents", "code.levels")

    stage: Literal["refinement"] = "refinement"
    parents: EncoderParents
    code: CodeSection = CodeSection()
    loss: LossSection = LossSection()
    critic: ParentCriticSection = ParentCriticSection()

    def parent_runs(self) -> dict[str, str]:
        return {"encoder": self.parents.encoder}


class CriticParents(Section):
    decoder: str = Field(
        description="directory of a finished run of stage end_to_end, universal or refinement,"
        " whose images the critic judges"
    )
    encoder: str | None = Field(
        None,
        description="directory of the end_to_end run that the decoder's run started from; null if"
        " the decoder's run is of stage end_to_end itself",
    )


class CriticRecipe(UrdpRecipe):
    """Train a fresh critic on the images of a finished decoder, to measure its perception."""

    MEASURES: ClassVar[str | None] = "decoder"

    stage: Literal["critic"] = "critic"
    parents: CriticParents
    critic: CriticSection = CriticSection()

    def parent_runs(self) -> dict[str, str]:
        runs = {"decoder": self.parents.decoder}
        return runs if self.parents.encoder is None else runs | {"encoder": self.parents.encoder}
