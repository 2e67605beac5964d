"""Distributions of latents, the rate of a posterior against a prior, and networks of both.

A latent is coded at about KL(posterior ‖ prior) nats. A posterior that is uniform on an interval of
width 1 is coded by universal quantization (Agustsson and Theis, NeurIPS 2020) instead, at
−log P(z), where P(z) is the prior's probability of the interval of width 1 about z: the density at
z of the prior plus uniform noise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencomp.losses import at_least_float32

Shape = tuple[int, int, int]
# Gives the noise [B, C, H, W] of a layer from its number and [C, H, W].
Noise = Callable[[int, Shape], Tensor]


class Normal(NamedTuple):
    """Independent normal distributions, with their means and standard deviations [B, C, H, W]."""

    mean: Tensor
    scale: Tensor

    def at(self, noise: Tensor) -> Tensor:
        """The values that belong to standard normal noise."""
        return self.mean + self.scale * noise

    def nats(self, prior: Normal, z: Tensor) -> Tensor:
        """The divergence KL(self ‖ prior) of each latent, whatever its value z is."""
        spread = (self.scale.square() + (self.mean - prior.mean).square()) / prior.scale.square()
        return (prior.scale / self.scale).log() + (spread - 1) / 2


class Uniform(NamedTuple):
    """Independent uniform distributions on intervals of width 1 about means [B, C, H, W]."""

    mean: Tensor

    def at(self, noise: Tensor) -> Tensor:
        """The values that belong to noise uniform on [−½, ½)."""
        return self.mean + noise

    def nats(self, prior: Normal, z: Tensor) -> Tensor:
        """The rate of each latent at its value z, −log(Φ((z + ½ − μ)/σ) − Φ((z − ½ − μ)/σ))."""
        # By symmetry the interval may lie on the left, where log Φ is exact.
        far = -(z - prior.mean).abs()
        upper = torch.special.log_ndtr((far + 0.5) / prior.scale)
        lower = torch.special.log_ndtr((far - 0.5) / prior.scale)
        return -(upper + (-torch.expm1(lower - upper)).log())


Posterior = Normal | Uniform


class Passed(NamedTuple):
    """What a pass through a model gives.

    Attributes:
        nats_BC: the rate of each channel of each layer in nats, summed over its places; the layers
            are in the order of coding.
        output_BCHW: the model's output for the latents that were drawn.
    """

    nats_BC: list[Tensor]
    output_BCHW: Tensor


class LatentNetwork(nn.Module, ABC):
    """A network of images with layers of latents, numbered in the order of coding.

    Attributes:
        stride, least: the sides of images are multiples of the one and at least the other.
        channels: the number of channels of each layer.
        units: the pixels in a row for each place of each layer.
    """

    stride: int
    least: int
    channels: tuple[int, ...]
    units: tuple[int, ...]

    @abstractmethod
    def forward(self, x_BCHW: Tensor, noise: Noise) -> Passed:
        """Pass images through the network, with the noise that its posteriors take."""

    @abstractmethod
    def sample(self, batch: int, height: int, width: int, noise: Noise) -> Tensor:
        """Outputs [B, 3, height, width] for latents from the prior, with standard normal noise."""

    def padded(self, x_BCHW: Tensor) -> Tensor:
        """Images of any size, padded to one that the network takes.

        The last row and column are repeated.
        """
        sides = x_BCHW.shape[2:]
        below, right = (whole - side for whole, side in zip(self.size(*sides), sides, strict=True))
        if not (below or right):
            return x_BCHW
        return F.pad(x_BCHW, (0, right, 0, below), mode="replicate")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """The height and width to which an image is padded."""
        rows, columns = (max(self.least, side + -side % self.stride) for side in (height, width))
        return rows, columns

    def places(self, height: int, width: int) -> list[int]:
        """The number of places of each layer for images of a size."""
        rows, columns = self.size(height, width)
        return [rows // unit * (columns // unit) for unit in self.units]


def rates_BC(posterior: Posterior, prior: Normal, z_BCHW: Tensor) -> Tensor:
    """The rate of each channel of a layer in nats, [B, C]."""
    return posterior.nats(prior, z_BCHW).sum((2, 3))


def shape_of(x_BCHW: Tensor) -> Shape:
    """The shape [C, H, W] of one row."""
    _, channels, height, width = x_BCHW.shape
    return channels, height, width


def parts_of(heads_BCHW: Tensor, *channels: int) -> tuple[Tensor, ...]:
    """The parts of a layer's output along its channels, in float32 at least."""
    return at_least_float32(heads_BCHW).split(channels, dim=1)
