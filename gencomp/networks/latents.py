"""Distributions of latents, the rate of a posterior against a prior, and networks of both.

A latent is coded at about KL(posterior ‖ prior) nats. A posterior that is uniform on an interval of
width 1 is coded by universal quantization (Agustsson and Theis, NeurIPS 2020) instead, at
−log P(z), where P(z) is the prior's probability of the interval of width 1 about z: the density at
z of the prior plus uniform noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
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


def padded(x_BCHW: Tensor, stride: int, least: int) -> Tensor:
    """Images whose sides are multiples of a stride, and `least` at least.

    The last row and column are repeated.
    """
    below, right = (padding(size, stride, least) for size in x_BCHW.shape[2:])
    if not (below or right):
        return x_BCHW
    return F.pad(x_BCHW, (0, right, 0, below), mode="replicate")


def padding(size: int, stride: int, least: int) -> int:
    """The pixels that a side lacks of the next multiple of a stride, and of `least`."""
    return max(least - size, -size % stride)
