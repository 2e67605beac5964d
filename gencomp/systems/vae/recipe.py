"""The recipe of a variational autoencoder with Gaussian pixels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gencomp.recipes.schema import BaseRecipe, OptimizerSection, Section, Size

_DCGAN_SIZE = (32, 32)
_WIDTHS = {
    "deep": "at least one hidden layer, such as [1024, 1024, 1024]",
    "linear": "no hidden layer, []",
    "dcgan": "one number, the channels before the last layer, such as [128]",
}


class VaeNetworks(Section):
    decoder: Literal["deep", "linear", "dcgan"] = Field(
        "deep",
        description="kind of decoder: deep has linear layers, tanh between them and a last sigmoid;"
        " linear is W z + b; dcgan has transposed convolutions to 32×32 pixels, batch norm and a"
        " last tanh",
    )
    latent_dim: int = Field(10, ge=1, description="number k of latent dimensions")
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1024, 1024, 1024),
        description="numbers of units of a deep decoder's hidden layers, which the encoder has in"
        " reverse; no number for linear; for dcgan the number of channels before the last layer",
    )
    channels: Literal[1, 3] = Field(
        1,
        description="number of colour channels that are modelled; 1 is for grey images, whose three"
        " channels are equal",
    )
    image_size: Size = Field((28, 28), description="[height, width] of the images in pixels")

    @model_validator(mode="after")
    def _fits_the_decoder(self) -> VaeNetworks:
        fits = {
            "deep": len(self.widths) >= 1,
            "linear": not self.widths,
            "dcgan": len(self.widths) == 1,
        }
        if not fits[self.decoder]:
            raise ValueError(
                f"widths is {list(self.widths)}, but decoder {self.decoder} takes"
                f" {_WIDTHS[self.decoder]}"
            )
        if self.decoder == "dcgan" and self.image_size != _DCGAN_SIZE:
            raise ValueError(
                f"image_size is {list(self.image_size)}, but decoder dcgan makes images of"
                f" {list(_DCGAN_SIZE)}"
            )
        return self


class LikelihoodSection(Section):
    """Pixels are N(f(z), s²) on the decoder's scale, which is [−1, 1] for dcgan and else [0, 1]."""

    variance: Literal["learnt", "fixed"] = Field(
        "learnt", description="whether s² is learnt or fixed"
    )
    value: float = Field(
        0.03, gt=0, description="s², the variance of the pixels, or its starting value if learnt"
    )


class VaeOptimizer(OptimizerSection):
    learning_rate: float = Field(1e-4, gt=0, description="base learning rate")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.999), description="decay rates of Adam's two moments"
    )


class VaeRecipe(BaseRecipe):
    """Maximise the evidence lower bound over encoder, decoder and the variance of the pixels."""

    system: Literal["vae"] = "vae"
    stage: Literal["elbo"] = "elbo"
    networks: VaeNetworks = VaeNetworks()
    likelihood: LikelihoodSection = LikelihoodSection()
    optimizer: VaeOptimizer = VaeOptimizer()

    def batch_statistics(self) -> str:
        if self.networks.decoder == "dcgan":
            return "the statistics of batch norm in networks.decoder dcgan"
        return ""
