"""The networks of universal rate-distortion-perception codecs (Zhang et al., NeurIPS 2021).

Images have 28×28 pixels (the published networks of MNIST), 32×32 (those of SVHN), or 64×64 (grown
from those of SVHN by the same rule). All values are on [0, 1], and LeakyReLU has the slope 0.01.

    encoder 28   linear layers 4w, 2w, w, w with batch norm, w = 128·width
    encoder 32   convolutions w, 2w, 4w of stride 2 without batch norm, w = 64·width
    encoder 64   convolutions w, 2w, 4w, 8w of the same kind
    decoder      two linear layers to 32 maps of 4×4; transposed convolutions of stride 2 while the
                 map stays smaller than the image (11, 25, 53), then of stride 1 (each adds 4) up to
                 3 less than the side, and a last one of size 4 and a sigmoid
    critic       convolutions 64, 128, 256 (and 512 for 64×64) of stride 2, and a linear layer

Encoders end in a linear layer (in the dense one with batch norm) and a tanh.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from torch import nn

from gencomp.networks.batch_norm import GlobalBatchNorm1d, GlobalBatchNorm2d

_SLOPE = 0.01
_FIRST_SIDE = 4
_FIRST_MAPS = 32
_FULLY_CONNECTED_SIDE = 28


def encoder(side: int, channels: int, latents: int, width: float = 1.0) -> nn.Sequential:
    """The map from images [B, C, side, side] to latents in (−1, 1), [B, latents].

    Args:
        side: the height and width of the images, 28, 32 or 64.
        channels: the number C of colour channels.
        latents: the number d of latents.
        width: the factor of all hidden widths.
    """
    if side == _FULLY_CONNECTED_SIDE:
        unit = max(1, int(128 * width))
        sizes = [channels * side**2, 4 * unit, 2 * unit, unit, unit]
        hidden = (layer for a, b in pairwise(sizes) for layer in _dense(a, b))
        last = [nn.Linear(unit, latents), GlobalBatchNorm1d(latents)]
        return nn.Sequential(nn.Flatten(), *hidden, *last, nn.Tanh())
    maps = [channels, *_doubling(side, width)]
    strided = (layer for a, b in pairwise(maps) for layer in _strided(a, b))
    last = [nn.Linear(maps[-1] * _FIRST_SIDE**2, latents)]
    return nn.Sequential(*strided, nn.Flatten(), *last, nn.Tanh())


def decoder(side: int, channels: int, latents: int, width: float = 1.0) -> nn.Sequential:
    """The map from received latents [B, latents] to images in (0, 1), [B, C, side, side].

    The arguments are those of `encoder`.
    """
    first = _scaled(_FIRST_MAPS, width)
    units = [latents, _scaled(128, width), first * _FIRST_SIDE**2]
    dense = (layer for a, b in pairwise(units) for layer in _dense(a, b))
    strides = _strides(side)
    maps = [first, *(_scaled(size, width) for size in _decoder_maps(len(strides)))]
    growing = (
        layer
        for (a, b), stride in zip(pairwise(maps), strides, strict=True)
        for layer in (
            nn.ConvTranspose2d(a, b, 5, stride),
            GlobalBatchNorm2d(b),
            nn.LeakyReLU(_SLOPE),
        )
    )
    shape = nn.Unflatten(1, (first, _FIRST_SIDE, _FIRST_SIDE))
    last = nn.ConvTranspose2d(maps[-1], channels, 4)
    return nn.Sequential(*dense, shape, *growing, last, nn.Sigmoid())


def critic(side: int, channels: int, width: float = 1.0) -> nn.Sequential:
    """The critic of images [B, C, side, side], one score each, [B, 1].

    The arguments are those of `encoder`.
    """
    maps = [channels, *_doubling(side, width)]
    strided = (layer for a, b in pairwise(maps) for layer in _strided(a, b))
    return nn.Sequential(*strided, nn.Flatten(), nn.Linear(maps[-1] * _FIRST_SIDE**2, 1))


def _doubling(side: int, width: float) -> list[int]:
    """The maps of the convolutions of stride 2 that leave 4×4, each twice as many as before."""
    count = (side - 1).bit_length() - (_FIRST_SIDE - 1).bit_length()
    unit = _scaled(64, width)
    return [unit << i for i in range(count)]


def _strides(side: int) -> list[int]:
    """The strides of the transposed convolutions of size 5 before the last one of size 4."""
    found, reached, goal = [], _FIRST_SIDE, side - 3
    while reached < goal:
        stride = 2 if 2 * reached + 3 <= goal else 1
        reached = (reached - 1) * stride + 5
        found.append(stride)
    return found


def _decoder_maps(count: int) -> list[int]:
    """The published ones are 64, 128 for MNIST and 64, 108, 128 for SVHN."""
    return [64, 108, *[128] * (count - 2)] if count > 2 else [64, 128]


def _scaled(size: int, width: float) -> int:
    return max(1, int(size * width))


def _dense(inputs: int, outputs: int) -> Iterator[nn.Module]:
    yield from (nn.Linear(inputs, outputs), GlobalBatchNorm1d(outputs), nn.LeakyReLU(_SLOPE))


def _strided(inputs: int, outputs: int) -> Iterator[nn.Module]:
    yield from (nn.Conv2d(inputs, outputs, 5, 2, padding=2), nn.LeakyReLU(_SLOPE))
