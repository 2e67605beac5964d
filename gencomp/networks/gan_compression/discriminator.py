"""Discriminators of images at several scales (Wang et al., *High-Resolution Image Synthesis and
Semantic Manipulation with Conditional GANs*, CVPR 2018), as generative compression uses them.

Scale k sees the image at 1/2^k of its height and width. Each scale has a network of its own, with
n = 64 as published: four convolutions of size 4 and stride 2 to n, 2n, 4n, 8n channels with a norm
(but the first) and LeakyReLU 0.2, and one of stride 1 to a score for each patch. The four maps
after the activations are the features that feature matching compares.

A condition is given to every scale: planes of a label map by nearest neighbour, and latents through
a convolution of their own, also by nearest neighbour (Mentzer et al., NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gencomp.networks.gan_compression.autoencoder import STRIDE, Padding, glorot_
from gencomp.networks.norms import Norm, norm
from gencomp.networks.padding import halved, strided

DiscriminatorNorm = Norm | Literal["none"]
_SLOPE = 0.2


class Judged(NamedTuple):
    """What one scale says of images.

    Attributes:
        scores: the scores of the patches, [B, 1, h, w].
        features: the maps after the activations, four of them.
    """

    scores: Tensor
    features: list[Tensor]


class Condition(NamedTuple):
    """What a discriminator knows of images beside their pixels.

    Attributes:
        planes_BKHW: the planes of their label maps, if it sees labels.
        latents_BCHW: their quantized latents, if it sees latents; no gradient flows to them.
    """

    planes_BKHW: Tensor | None = None
    latents_BCHW: Tensor | None = None

    def twice(self) -> Condition:
        """The condition of the same images two times, all of them and then all of them again."""
        return Condition(*(None if one is None else torch.cat([one, one]) for one in self))


NOTHING = Condition()


class Discriminator(nn.Module):
    """The discriminators of all scales.

    Args:
        planes: the number of planes of a label map; 0 without labels.
        width: the number n of channels after the first convolution.
        scales: the number of scales.
        norm: the kind of the norm.
        padding: the kind of the zeros around convolutions.
        spectral: whether each weight is divided by its spectral norm.
        latents: the number of channels of the latents that it sees; 0 for none.
        latent_stride: the height and width of an image over those of its latents.
        latent_features: the number of channels that are made of the latents.
    """

    def __init__(
        self,
        *,
        planes: int = 0,
        width: int = 64,
        scales: int = 3,
        norm: DiscriminatorNorm = "instance",
        padding: Padding = "symmetric",
        spectral: bool = False,
        latents: int = 0,
        latent_stride: int = STRIDE,
        latent_features: int = 12,
    ) -> None:
        super().__init__()
        self.same, self.latent_stride = padding == "tf_same", latent_stride
        inputs = 3 + planes + (latent_features if latents else 0)
        self.scales = nn.ModuleList(_scale(inputs, width, norm, self.same) for _ in range(scales))
        self.latents = (
            nn.Sequential(nn.Conv2d(latents, latent_features, 3, padding=1), nn.LeakyReLU(_SLOPE))
            if latents
            else None
        )
        glorot_(self)
        if spectral:
            for module in list(self.modules()):
                if isinstance(module, nn.Conv2d):
                    spectral_norm(module)

    def forward(self, x_BCHW: Tensor, condition: Condition = NOTHING) -> list[Judged]:
        """What every scale says of images, the full size first."""
        conditions = self.conditions(condition, x_BCHW)
        pyramid = self.pyramid(x_BCHW)
        return [
            self.judge(scale, x, extra)
            for scale, (x, extra) in enumerate(zip(pyramid, conditions, strict=True))
        ]

    def pyramid(self, x_BCHW: Tensor) -> list[Tensor]:
        """The images at every scale."""
        found = [x_BCHW]
        while len(found) < len(self.scales):
            found.append(halved(found[-1], self.same))
        return found

    def conditions(self, condition: Condition, x_BCHW: Tensor) -> list[Tensor | None]:
        """The channels that each scale gets beside those of its images."""
        planes_BKHW, latents_BCHW = condition
        found: list[list[Tensor]] = [[] for _ in self.scales]
        if planes_BKHW is not None:
            for k, parts in enumerate(found):
                parts.append(planes_BKHW[:, :, :: 1 << k, :: 1 << k])
        if self.latents is not None:
            assert latents_BCHW is not None
            h_BCHW = self.latents(latents_BCHW.detach())
            for axis in (2, 3):
                h_BCHW = h_BCHW.repeat_interleave(self.latent_stride, axis)
                h_BCHW = h_BCHW.narrow(axis, 0, x_BCHW.shape[axis])
            for k, parts in enumerate(found):
                parts.append(h_BCHW[:, :, :: 1 << k, :: 1 << k])
        return [torch.cat(parts, 1) if parts else None for parts in found]

    def judge(self, scale: int, x_BCHW: Tensor, extra_BCHW: Tensor | None) -> Judged:
        """What one scale says of images at its size.

        Args:
            scale: the number of the scale, from 0.
            x_BCHW: its images, as `pyramid` gives them.
            extra_BCHW: its channels of the condition, as `conditions` gives them.
        """
        h_BCHW = x_BCHW
        if extra_BCHW is not None:
            h_BCHW = torch.cat([x_BCHW, extra_BCHW.to(x_BCHW.dtype)], 1)
        network = self.scales[scale]
        assert isinstance(network, nn.ModuleList)
        *layers, last = network
        features: list[Tensor] = []
        for layer in layers:
            h_BCHW = layer(h_BCHW)
            features.append(h_BCHW)
        return Judged(last(h_BCHW), features)


def least_side(scales: int) -> int:
    """The side of the smallest image whose coarsest scale still has a patch, in pixels."""
    return 16 << (scales - 1)


def _scale(inputs: int, width: int, kind: DiscriminatorNorm, same: bool) -> nn.ModuleList:
    sizes = [inputs, *(width << k for k in range(4))]
    layers = (
        nn.Sequential(*strided(a, b, 4, 2, same), *_end("none" if number == 0 else kind, b))
        for number, (a, b) in enumerate(pairwise(sizes))
    )
    # No padding of size 4 and stride 1 is symmetric; either rule puts two zeros at the end.
    return nn.ModuleList(
        [*layers, nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(sizes[-1], 1, 4))]
    )


def _end(kind: DiscriminatorNorm, channels: int) -> Iterator[nn.Module]:
    if kind != "none":
        yield norm(kind, channels)
    yield nn.LeakyReLU(_SLOPE)
