"""The lossy models of Flamich, Havasi and Hernández-Lobato, *Compressing Images by Encoding Their
Latent Representations with Relative Entropy Coding*, NeurIPS 2020.

    TwoLevel   the layout of Ballé et al., ICLR 2018, without quantization: 10,308,659 parameters
    OneLevel   its transforms with a learnt prior: 5,846,403 parameters

Layers of latents are numbered in the order of coding, and images are on [0, 1]. Convolutions see
reflected borders. The kernels are stored as they are, where the authors' code stores most of them
as their real Fourier coefficients: that changes the steps of Adam only.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencomp.losses import at_least_float32
from gencomp.networks.gdn import Gdn
from gencomp.networks.latents import (
    LatentNetwork,
    Noise,
    Normal,
    Passed,
    Posterior,
    Uniform,
    rates_BC,
    shape_of,
)

PosteriorKind = Literal["gaussian", "uniform"]
# An output of so many channels, with so many taps in a row and in a column, and a stride.
Layer = tuple[int, int, int]

Convolution = TypeVar("Convolution", nn.Conv2d, nn.ConvTranspose2d)

_LEAST_SCALE = 1e-7
# The standard deviation of a standard normal number that is drawn again beyond ±2.
_TRUNCATED_DEVIATION = 0.87962566103423978


class Head(NamedTuple):
    """A distribution before its scale is made positive: `raw` is None where it has no scale."""

    mean: Tensor
    raw: Tensor | None

    def posterior(self) -> Posterior:
        if self.raw is None:
            return Uniform(at_least_float32(self.mean))
        return Normal(at_least_float32(self.mean), _positive(self.raw))


class LearntPrior(nn.Module):
    """One normal distribution for each channel, as three convolutions make it of a vector.

    The vector fills a map, so a convolution with reflected borders gives a constant map again, and
    a map of any size is the same value in every place.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.vector_C = nn.Parameter(torch.zeros(channels))
        self.first = nn.Sequential(_convolution(channels, channels, 3), nn.ELU())
        self.mean = _convolution(channels, channels, 3)
        self.raw = _convolution(channels, channels, 3)

    def forward(self, batch: int, height: int, width: int) -> Normal:
        """The prior for maps of a size, [B, C, height, width]."""
        constant_1C22 = self.vector_C[None, :, None, None].expand(-1, -1, 2, 2)
        h_1C22 = self.first(constant_1C22)
        found = Normal(at_least_float32(self.mean(h_1C22)), _positive(self.raw(h_1C22)))
        return Normal(*(x[:, :, :1, :1].expand(batch, -1, height, width) for x in found))


class Lossy(LatentNetwork):
    """What the two lossy models share: the transforms between images and their first latents.

    Attributes:
        unit: the pixels in a row for each place of the latents that the synthesis decodes.
        finest: the pixels in a row for each place of the largest maps inside the transforms.
        reach: the number of places of these latents, in each direction from a pixel's own, beyond
            which neither the pixel depends on them nor they on the pixel.
        prior: the prior of the first layer that is coded.
    """

    finest: int
    unit = 16
    reach = 2

    def __init__(self, posterior: PosteriorKind, prior_channels: int) -> None:
        super().__init__()
        self.gaussian = posterior == "gaussian"
        self.prior = LearntPrior(prior_channels)
        self.analysis: nn.Module
        self.mean: nn.Module
        self.raw: nn.Module | None
        self.synthesis: nn.Sequential

    def analyse(self, x_BCHW: Tensor) -> Head:
        """What an image says of the latents that the synthesis decodes, [B, F, H/16, W/16]."""
        h_BCHW = self.analysis(x_BCHW)
        return Head(self.mean(h_BCHW), None if self.raw is None else self.raw(h_BCHW))

    def synthesise(self, z_BFHW: Tensor) -> Tensor:
        """The image of latents, [B, 3, 16·H, 16·W]."""
        return at_least_float32(self.synthesis(z_BFHW))


class TwoLevel(Lossy):
    """Latents of a 16th of the image's height and width, whose prior depends on others of a 64th.

    Args:
        filters: the number F of channels of the features and of the latents of layer 1.
        hyper_filters: the number G of channels of the latents of layer 0.
        posterior: the kind of both posteriors.
    """

    stride, least, units, finest = 64, 128, (64, 16), 2

    def __init__(
        self, filters: int = 196, hyper_filters: int = 128, posterior: PosteriorKind = "gaussian"
    ) -> None:
        f, g = filters, hyper_filters
        super().__init__(posterior, g)
        self.channels = (g, f)
        self.analysis = _analysis((f, 5, 2), (f, 5, 2), (f, 5, 2))
        self.mean = _convolution(f, f, 5, 2)
        self.raw = _convolution(f, f, 5, 2) if self.gaussian else None
        self.hyper_analysis = nn.Sequential(
            _convolution(f, g, 3), nn.ReLU(), _convolution(g, g, 5, 2), nn.ReLU()
        )
        self.hyper_mean = _convolution(g, g, 5, 2, bias=False)
        self.hyper_raw = _convolution(g, g, 5, 2, bias=False) if self.gaussian else None
        self.hyper_synthesis = nn.Sequential(
            _transposed(g, g, 5, 2), nn.ReLU(), _transposed(g, g, 5, 2), nn.ReLU()
        )
        self.prior_mean = _convolution(g, f, 3)
        self.prior_raw = _convolution(g, f, 3)
        self.joint_mean = _initialised(nn.Conv2d(2 * f, f, 1), 2 * f)
        self.joint_raw = _initialised(nn.Conv2d(2 * f, f, 1), 2 * f) if self.gaussian else None
        self.synthesis = _synthesis(f, (f, 5, 2), (f, 5, 2), (f, 5, 2), (3, 5, 2))

    def hyper_analyse(self, head: Head) -> Head:
        """What an image says of the latents of layer 0, from what it says of those of layer 1."""
        h_BCHW = self.hyper_analysis(head.mean)
        raw = None if self.hyper_raw is None else self.hyper_raw(h_BCHW)
        return Head(self.hyper_mean(h_BCHW), raw)

    def hyper_synthesise(self, z_BGHW: Tensor) -> Head:
        """The prior of layer 1 given the latents of layer 0, before its scale is positive."""
        h_BCHW = self.hyper_synthesis(z_BGHW)
        return Head(self.prior_mean(h_BCHW), self.prior_raw(h_BCHW))

    def joined(self, head: Head, prior: Head) -> Posterior:
        """The posterior of layer 1 given the image and the latents of layer 0."""
        mean = self.joint_mean(F.elu(torch.cat([head.mean, prior.mean], dim=1)))
        if self.joint_raw is None:
            return Head(mean, None).posterior()
        assert head.raw is not None and prior.raw is not None
        raw = self.joint_raw(F.elu(torch.cat([head.raw, prior.raw], dim=1)))
        return Head(mean, raw).posterior()

    def forward(self, x_BCHW: Tensor, noise: Noise) -> Passed:
        """Pass images through the model; the noise is what the posteriors take."""
        head = self.analyse(x_BCHW)
        posterior = self.hyper_analyse(head).posterior()
        prior = self.prior(len(x_BCHW), *posterior.mean.shape[2:])
        z_BGHW = posterior.at(noise(0, shape_of(posterior.mean)))
        nats_BC = [rates_BC(posterior, prior, z_BGHW)]
        prior_head = self.hyper_synthesise(z_BGHW)
        posterior = self.joined(head, prior_head)
        z_BFHW = posterior.at(noise(1, shape_of(posterior.mean)))
        nats_BC.append(rates_BC(posterior, as_prior(prior_head), z_BFHW))
        return Passed(nats_BC, self.synthesise(z_BFHW))

    def sample(self, batch: int, height: int, width: int, noise: Noise) -> Tensor:
        """Images of latents from the prior; the noise is standard normal."""
        prior = self.prior(batch, height // self.stride, width // self.stride)
        z_BGHW = prior.at(noise(0, shape_of(prior.mean)))
        prior = as_prior(self.hyper_synthesise(z_BGHW))
        return self.synthesise(prior.at(noise(1, shape_of(prior.mean))))


class OneLevel(Lossy):
    """Latents of a 16th of the image's height and width with a learnt prior.

    Args:
        filters: the number of channels of features and latents.
        posterior: the kind of the posterior.
    """

    stride, least, units, finest = 16, 32, (16,), 4

    def __init__(self, filters: int = 192, posterior: PosteriorKind = "gaussian") -> None:
        f = filters
        super().__init__(posterior, f)
        self.channels = (f,)
        self.analysis = _analysis((f, 9, 4), (f, 5, 2))
        self.mean = _convolution(f, f, 5, 2, bias=False)
        self.raw = _convolution(f, f, 5, 2, bias=False) if self.gaussian else None
        self.synthesis = _synthesis(f, (f, 5, 2), (f, 5, 2), (3, 9, 4))

    def forward(self, x_BCHW: Tensor, noise: Noise) -> Passed:
        """Pass images through the model; the noise is what the posterior takes."""
        posterior = self.analyse(x_BCHW).posterior()
        prior = self.prior(len(x_BCHW), *posterior.mean.shape[2:])
        z_BFHW = posterior.at(noise(0, shape_of(posterior.mean)))
        return Passed([rates_BC(posterior, prior, z_BFHW)], self.synthesise(z_BFHW))

    def sample(self, batch: int, height: int, width: int, noise: Noise) -> Tensor:
        """Images of latents from the prior; the noise is standard normal."""
        prior = self.prior(batch, height // self.unit, width // self.unit)
        return self.synthesise(prior.at(noise(0, shape_of(prior.mean))))


def as_prior(head: Head) -> Normal:
    """The prior that a head stands for."""
    found = head.posterior()
    assert isinstance(found, Normal)
    return found


def _analysis(*layers: Layer) -> nn.Sequential:
    """Convolutions from images, each followed by a normalisation."""
    inputs = (3, *(outputs for outputs, _, _ in layers))
    return nn.Sequential(
        *(
            module
            for channels, (outputs, taps, stride) in zip(inputs, layers, strict=False)
            for module in (*_convolution(channels, outputs, taps, stride), Gdn(outputs))
        )
    )


def _synthesis(channels: int, *layers: Layer) -> nn.Sequential:
    """Transposed convolutions to images with inverse normalisations between them."""
    modules: list[nn.Module] = []
    for outputs, taps, stride in layers:
        if modules:
            modules.append(Gdn(channels, inverse=True))
        modules += _transposed(channels, outputs, taps, stride)
        channels = outputs
    return nn.Sequential(*modules)


def _convolution(
    inputs: int, outputs: int, taps: int, stride: int = 1, bias: bool = True
) -> nn.Sequential:
    """A convolution with reflected borders, from [B, C, H, W] to a stride-th of the size."""
    layer = _initialised(nn.Conv2d(inputs, outputs, taps, stride, bias=bias), inputs)
    return nn.Sequential(nn.ReflectionPad2d(taps // 2), layer)


def _transposed(inputs: int, outputs: int, taps: int, stride: int) -> nn.Sequential:
    """A transposed convolution with reflected borders, to `stride` times the size."""
    layer = nn.ConvTranspose2d(
        inputs, outputs, taps, stride, padding=taps - 1, output_padding=stride - 1
    )
    return nn.Sequential(nn.ReflectionPad2d(1), _initialised(layer, inputs))


def _initialised(layer: Convolution, inputs: int) -> Convolution:
    """The layer with weights of variance 1/n for n inputs of an output's kernel, and no bias."""
    deviation = 1 / math.sqrt(inputs * math.prod(layer.kernel_size)) / _TRUNCATED_DEVIATION
    nn.init.trunc_normal_(layer.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _positive(raw: Tensor) -> Tensor:
    return F.softplus(at_least_float32(raw)) + _LEAST_SCALE
