"""The encoders and the decoder, with the kinds of layers that they share."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gencomp.networks.norms import Norm, norm
from gencomp.networks.padding import ReflectPad2d, Upsample2d, strided

Padding = Literal["symmetric", "tf_same"]
Network = TypeVar("Network", bound=nn.Module)

# The height and width of an image over those of the decoder's input.
STRIDE = 16
# The sides of the smallest image, whose latents still have a pixel to reflect.
LEAST = 32


class Layers:
    """The layers of one kind of norm and padding, in the paper's words.

    Args:
        norm: the kind of the norm.
        padding: the kind of the zeros around strided and transposed convolutions.
    """

    def __init__(self, norm: Norm, padding: Padding) -> None:
        self.norm: Norm = norm
        self.same = padding == "tf_same"

    def c(self, size: int, inputs: int, outputs: int) -> Iterator[nn.Module]:
        """c7s1 or c3s1."""
        yield from reflected(size, inputs, outputs)
        yield from self._end(outputs)

    def d(self, inputs: int, outputs: int) -> Iterator[nn.Module]:
        yield from strided(inputs, outputs, 3, 2, self.same)
        yield from self._end(outputs)

    def u(self, inputs: int, outputs: int) -> Iterator[nn.Module]:
        yield Upsample2d(inputs, outputs, self.same)
        yield from self._end(outputs)

    def analysis(self, inputs: int, width: int, halvings: int) -> nn.Sequential:
        """c7s1-w, d2w, d4w, ..., with one d for each halving."""
        sizes = [width << k for k in range(halvings + 1)]
        down = (layer for a, b in pairwise(sizes) for layer in self.d(a, b))
        return nn.Sequential(*self.c(7, inputs, width), *down)

    def _end(self, outputs: int) -> Iterator[nn.Module]:
        yield norm(self.norm, outputs)
        yield nn.ReLU()


class Encoder(nn.Module):
    """The map from images [B, 3, H, W] to latents [B, C, H/16, W/16], or H/8 and W/8.

    Args:
        channels: the number C of channels of the latents.
        width: the number w of channels after the first convolution.
        layers: the kind of layers.
        halvings: the number of layers of stride 2: 4, or 3 for latents at an eighth.
        known: the number of channels of features that the decoder has beside the code, which the
            last convolution then takes too.
        rectified: whether a norm and a ReLU follow the last convolution, as in the port.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        layers: Layers,
        *,
        halvings: int = 4,
        known: int = 0,
        rectified: bool = False,
    ) -> None:
        super().__init__()
        self.features = layers.analysis(3, width, halvings)
        last = layers.c if rectified else reflected
        self.last = nn.Sequential(*last(3, (width << halvings) + known, channels))
        glorot_(self)

    def forward(self, x_BCHW: Tensor, known_BFHW: Tensor | None = None) -> Tensor:
        h_BFHW = self.features(x_BCHW)
        if known_BFHW is not None:
            h_BFHW = torch.cat([h_BFHW, known_BFHW], 1)
        return self.last(h_BFHW)


def label_encoder(planes: int, width: int, layers: Layers) -> nn.Sequential:
    """The map from the planes of label maps [B, K, H, W] to features [B, 16w, H/16, W/16].

    Args:
        planes: the number K of planes.
        width: the number w of channels after the first convolution.
        layers: the kind of layers.
    """
    return glorot_(layers.analysis(planes, width, 4))


def lift(channels: int, width: int, layers: Layers) -> nn.Sequential:
    """The map from selective latents [B, C, H/8, W/8] to features [B, 16w, H/16, W/16]: c3s1-8w,
    d16w.
    """
    return glorot_(
        nn.Sequential(*layers.c(3, channels, 8 * width), *layers.d(8 * width, 16 * width))
    )


class ResidualBlock(nn.Module):
    """The block x + norm(conv(ReLU(norm(conv(x))))), without an activation after the sum."""

    def __init__(self, channels: int, layers: Layers) -> None:
        super().__init__()
        last = [*reflected(3, channels, channels), norm(layers.norm, channels)]
        self.inner = nn.Sequential(*layers.c(3, channels, channels), *last)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.inner(x_BCHW)


class Decoder(nn.Module):
    """The map from its inputs [B, I, H/16, W/16], the code among them, to images on [−1, 1].

    Args:
        inputs: the number I of channels.
        width: the number w of channels before the last convolution.
        blocks: the number R of residual blocks.
        layers: the kind of layers.
        recompute: whether the residual blocks are computed again in the backward pass, which saves
            the memory of what is inside them.
    """

    def __init__(
        self, inputs: int, width: int, blocks: int, layers: Layers, recompute: bool = False
    ) -> None:
        super().__init__()
        self.recompute = recompute
        self.first = nn.Sequential(*layers.c(3, inputs, 16 * width))
        self.blocks = nn.ModuleList(ResidualBlock(16 * width, layers) for _ in range(blocks))
        sizes = [width << k for k in range(4, -1, -1)]
        up = (layer for a, b in pairwise(sizes) for layer in layers.u(a, b))
        self.last = nn.Sequential(*up, *reflected(7, width, 3), nn.Tanh())
        glorot_(self)

    def forward(self, z_BIHW: Tensor) -> Tensor:
        h_BCHW = self.first(z_BIHW)
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                h_BCHW = checkpoint(block, h_BCHW, use_reentrant=False)
            else:
                h_BCHW = block(h_BCHW)
        return self.last(h_BCHW)


def reflected(size: int, inputs: int, outputs: int) -> Iterator[nn.Module]:
    """A convolution of odd size between reflections."""
    yield ReflectPad2d(size // 2)
    yield nn.Conv2d(inputs, outputs, size)


def glorot_(network: Network) -> Network:
    """Draw the weights of all convolutions from U[−a, a], a = √(6/(fan_in + fan_out)), in place."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
