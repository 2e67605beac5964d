"""The latents and their prior, which the stages share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gencomp import quantizer
from gencomp.draws import Draws
from gencomp.networks import dplc as networks
from gencomp.systems.dplc.recipe import LatentSource

# Maps (networks, images [B, 3, 64, 64], draws) to latents [B, m, 1, 1].
Latents = Callable[[nn.ModuleDict, Tensor, Draws], Tensor]


@dataclass(frozen=True)
class Prior:
    """The prior N(0, σ² I) of the latents of one generator.

    Attributes:
        latent_dim: the number m of latent dimensions.
        variance: the variance σ².
    """

    latent_dim: int
    variance: float

    @property
    def scale(self) -> float:
        """The standard deviation σ."""
        return math.sqrt(self.variance)

    def sample(self, draws: Draws, dtype: torch.dtype, purpose: str = "prior") -> Tensor:
        """Samples for this rank's rows, [B, m, 1, 1], in `dtype` but at least float32."""
        z_BM11 = draws.normal(purpose, self.latent_dim, 1, 1)
        return z_BM11.to(torch.promote_types(dtype, z_BM11.dtype)) * self.scale

    def sample_whole(self, draws: Draws, dtype: torch.dtype) -> Tensor:
        """The samples for all rows of the global batch, [N, m, 1, 1], equal on every rank."""
        return self.sample(replace(draws, rank=0, world=1), dtype)


def encoder_latent(nets: nn.ModuleDict, x_BCHW: Tensor, draws: Draws) -> Tensor:
    """The latents F(x)."""
    return nets["encoder"](x_BCHW)


def coded_latent(levels: int) -> Latents:
    """The map to the latents B(quantise(E(x)), noise)."""
    cells = quantizer.cells(levels)

    def latent(nets: nn.ModuleDict, x_BCHW: Tensor, draws: Draws) -> Tensor:
        code_BCHW = quantizer.quantize(nets["code_encoder"](x_BCHW), cells)
        mapper = nets["latent_mapper"]
        assert isinstance(mapper, networks.LatentMapper)
        return mapper(code_BCHW, mapper_noise(mapper, levels, draws))

    return latent


def mapper_noise(mapper: networks.LatentMapper, levels: int, draws: Draws) -> Tensor:
    """The noise of B for this rank's rows, uniform on the half cell around 0."""
    half = quantizer.half_cell(levels)
    return draws.uniform("noise", -half, half, *mapper.noise_shape)


def prior_latent(prior: Prior) -> Latents:
    """A source of prior samples that differ from those that a latent penalty compares with."""

    def latent(nets: nn.ModuleDict, x_BCHW: Tensor, draws: Draws) -> Tensor:
        return prior.sample(draws, x_BCHW.dtype, "prior latents")

    return latent


def chosen_latent(source: LatentSource, encode: Latents, prior: Prior | None) -> Latents:
    """The map to the latents of a source.

    The source `interp` gives α·encode + (1 − α)·prior with one α ~ U[0, 1] for each image.

    Args:
        source: the source; all but `enc` need a prior.
        encode: the map from images to latents.
        prior: the prior of the same latents.
    """
    if source == "enc":
        return encode
    assert prior is not None
    sample = prior_latent(prior)
    if source == "prior":
        return sample

    def mixed(nets: nn.ModuleDict, x_BCHW: Tensor, draws: Draws) -> Tensor:
        alpha_B111 = draws.uniform("interpolation", 0, 1, 1, 1, 1)
        z_BM11 = encode(nets, x_BCHW, draws)
        return alpha_B111 * z_BM11 + (1 - alpha_B111) * sample(nets, x_BCHW, draws)

    return mixed


def dtype_of(network: nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype
