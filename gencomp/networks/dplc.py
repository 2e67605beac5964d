"""The networks of distribution-preserving lossy compression, for 64×64 RGB images.

They follow Tschannen, Agustsson and Lucic, *Deep Generative Models for Distribution-Preserving
Lossy Compression*, NeurIPS 2018, and are based on a DCGAN at 64×64 pixels.

    stage 1   x ──F──▶ z ──G──▶ x̂                      Encoder, Generator (and Critic)
    stage 2   x ──E──▶ y ──quantizer──▶ code            CodeEncoder
              (code, noise) ──B──▶ z ──G──▶ x̂           LatentMapper, Generator
    in place of the MMD  z ──Dz──▶ logit            LatentDiscriminator

Images are in [−1, 1]. A latent has the shape of z_BM11, so that every network is convolutional from
end to end. Parameters are registered in the order of the forward pass. For width 64 and latent_dim
128, the sizes are those of the paper: F has 3,806,208 parameters, G 3,870,403, the critic
3,073,792, the latent discriminator 854,529, and E and B together 13,284,864 + 9,217·n for n code
channels.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
from torch import Tensor, nn

from gencomp.errors import InputError
from gencomp.networks.batch_norm import GlobalBatchNorm2d

IMAGE_SIDE = 64
CODE_SIDE = 4  # four layers of stride 2 reduce the image to this side


Initialisation = Literal["dcgan", "he"]


def initialise(network: nn.Module, scheme: Initialisation = "dcgan") -> None:
    """Draw starting weights from torch's global generator, in place.

    Args:
        network: the network whose convolutions and norms are drawn; biases and linear layers keep
            torch's defaults.
        scheme: `dcgan` draws convolution weights from N(0, 0.02²) and batch norm scales from
            N(1, 0.02²), sets batch norm shifts to 0, and leaves layer norms at scale 1 and shift 0.
            `he` draws convolutions Kaiming-uniform (He et al., ICCV 2015), and layer norms in the
            same way as batch norms.
    """
    drawn = nn.BatchNorm2d if scheme == "dcgan" else (nn.BatchNorm2d, nn.LayerNorm)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            if scheme == "dcgan":
                nn.init.normal_(module.weight, 0.0, 0.02)
            else:
                nn.init.kaiming_uniform_(module.weight)
        elif isinstance(module, drawn):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)


class ResidualBlock(nn.Module):
    """A residual block: conv, norm, ReLU, conv, norm, addition of the input, ReLU.

    The last ReLU comes after the addition, so the output is not negative.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            GlobalBatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            GlobalBatchNorm2d(channels),
        )

    def forward(self, h_BCHW: Tensor) -> Tensor:
        """Apply the block to [B, C, H, W]; the shape stays the same."""
        return torch.relu(h_BCHW + self.layers(h_BCHW))


class Encoder(nn.Module):
    """The encoder F of stage 1, which maps an image to a latent without a rate constraint.

    Args:
        width: the number of channels after the first layer (ngf).
        latent_dim: the number m of latent dimensions (nz).
        residual_blocks: the number of residual blocks before the last layer.
        latent_batch_norm: whether the latent has a batch norm with learnable scale and shift (bnz).
        latent_scale: the σ of the prior, by which the batch norm's output is multiplied.
        initialisation: the scheme of the starting weights, see `initialise`.
    """

    def __init__(
        self,
        width: int = 64,
        latent_dim: int = 128,
        residual_blocks: int = 0,
        latent_batch_norm: bool = True,
        latent_scale: float = 1.0,
        initialisation: Initialisation = "dcgan",
    ) -> None:
        super().__init__()
        _require_at_least_one(width=width, latent_dim=latent_dim)
        self.layers = nn.Sequential(
            *_trunk(width),
            *(ResidualBlock(8 * width) for _ in range(residual_blocks)),
            *_to_latent(8 * width, latent_dim, latent_batch_norm, latent_scale),
        )
        initialise(self, initialisation)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The latents [B, m, 1, 1] of images [B, 3, 64, 64] in [−1, 1]."""
        _require_shape("The encoder", x_BCHW, (3, IMAGE_SIDE, IMAGE_SIDE))
        return self.layers(x_BCHW)


class CodeEncoder(nn.Module):
    """The encoder E of stage 2 without its quantizer, which is a function (`gencomp.quantizer`).

    Training passes the output through `quantizer.quantize`, and a codec passes it through
    `quantizer.quantize_hard`, so symbols are never read back from rounded floating-point values.

    Args:
        width: the number of channels after the first layer (ngf).
        code_channels: the number n of code channels (ncenc).
        initialisation: the scheme of the starting weights, see `initialise`.
    """

    def __init__(
        self, width: int = 64, code_channels: int = 8, initialisation: Initialisation = "dcgan"
    ) -> None:
        super().__init__()
        _require_at_least_one(width=width, code_channels=code_channels)
        self.layers = nn.Sequential(
            *_trunk(width), nn.Conv2d(8 * width, code_channels, 3, padding=1)
        )
        initialise(self, initialisation)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The values before the quantizer, [B, n, 4, 4], of images [B, 3, 64, 64] in [−1, 1]."""
        _require_shape("The code encoder", x_BCHW, (3, IMAGE_SIDE, IMAGE_SIDE))
        return self.layers(x_BCHW)


class LatentMapper(nn.Module):
    """The mapper B of stage 2, from a code and noise to a latent that should follow the prior.

    The noise is an argument, uniform on ± `quantizer.half_cell(levels)`: training draws it anew at
    every pass, and a codec draws it from a seed that the decoder knows. It has as many scalars as
    the latent, rounded up to whole channels.

    Args:
        width: a number such that the hidden layers have 8·width channels (ngf).
        latent_dim: the number m of latent dimensions, equal to the generator's.
        code_channels: the number n of code channels, 1..m.
        residual_blocks: the number of residual blocks; without any, B is an affine map.
        latent_batch_norm: whether the latent has a batch norm with learnable scale and shift (bnz).
        stochastic: whether there is a noise input (False is the paper's detenc).
        latent_scale: the σ of the prior, by which the batch norm's output is multiplied.
        initialisation: the scheme of the starting weights, see `initialise`.
    """

    def __init__(
        self,
        width: int = 64,
        latent_dim: int = 128,
        code_channels: int = 8,
        residual_blocks: int = 2,
        latent_batch_norm: bool = True,
        stochastic: bool = True,
        latent_scale: float = 1.0,
        initialisation: Initialisation = "dcgan",
    ) -> None:
        super().__init__()
        _require_at_least_one(width=width, latent_dim=latent_dim, code_channels=code_channels)
        if code_channels > latent_dim:
            raise InputError(
                f"code_channels is {code_channels}, allowed are 1 to the generator's latent_dim, "
                f"{latent_dim}."
            )
        self.code_channels = code_channels
        self.noise_channels = math.ceil(latent_dim / CODE_SIDE**2) if stochastic else 0
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(code_channels + self.noise_channels, 8 * width, 3, padding=1),
            *(ResidualBlock(8 * width) for _ in range(residual_blocks)),
            *_to_latent(8 * width, latent_dim, latent_batch_norm, latent_scale),
        )
        initialise(self, initialisation)

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """The shape of one image's noise, (channels, 4, 4); 0 channels mean that there is none."""
        return (self.noise_channels, CODE_SIDE, CODE_SIDE)

    def forward(self, code_BCHW: Tensor, noise_BCHW: Tensor | None = None) -> Tensor:
        """The latents [B, m, 1, 1] of code values [B, n, 4, 4] and noise [B, *noise_shape].

        The noise is None where the map is not stochastic.
        """
        shape = (self.code_channels, CODE_SIDE, CODE_SIDE)
        _require_shape("The latent map's code", code_BCHW, shape)
        if noise_BCHW is None:
            noise_BCHW = code_BCHW.new_empty(code_BCHW.shape[0], 0, CODE_SIDE, CODE_SIDE)
        _require_shape("The latent map's noise", noise_BCHW, self.noise_shape)
        return self.layers(torch.cat([code_BCHW, noise_BCHW], dim=1))


class Generator(nn.Module):
    """The generator G from latents to images, a DCGAN with a last convolution at full resolution.

    Args:
        width: the number of channels at full resolution (ngf).
        latent_dim: the number m of latent dimensions (nz).
        residual_blocks: the number of residual blocks after the first layer.
        initialisation: the scheme of the starting weights, see `initialise`.
    """

    def __init__(
        self,
        width: int = 64,
        latent_dim: int = 128,
        residual_blocks: int = 0,
        initialisation: Initialisation = "dcgan",
    ) -> None:
        super().__init__()
        _require_at_least_one(width=width, latent_dim=latent_dim)
        self.latent_dim = latent_dim
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(latent_dim, 8 * width, CODE_SIDE, bias=False),
            GlobalBatchNorm2d(8 * width),
            nn.ReLU(inplace=True),
            *(ResidualBlock(8 * width) for _ in range(residual_blocks)),
            *_up(8 * width, 4 * width),
            *_up(4 * width, 2 * width),
            *_up(2 * width, width),
            *_up(width, width),
            nn.Conv2d(width, 3, 3, padding=1),
            nn.Tanh(),
        )
        initialise(self, initialisation)

    def forward(self, z_BM11: Tensor) -> Tensor:
        """The images [B, 3, 64, 64] in (−1, 1) of latents [B, m, 1, 1]."""
        _require_shape("The generator", z_BM11, (self.latent_dim, 1, 1))
        return self.layers(z_BM11)


class Critic(nn.Module):
    """The critic f from images to unbounded scores, with layer norm so that images do not mix.

    Args:
        width: the number of channels at full resolution (ngf).
        initialisation: the scheme of the starting weights, see `initialise`.
    """

    def __init__(self, width: int = 64, initialisation: Initialisation = "dcgan") -> None:
        super().__init__()
        _require_at_least_one(width=width)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.LeakyReLU(0.2)]
        channels, side = width, IMAGE_SIDE
        for wider in (width, 2 * width, 4 * width, 8 * width):
            side //= 2
            layers += [
                nn.Conv2d(channels, wider, 4, stride=2, padding=1, bias=False),
                nn.LayerNorm([wider, side, side]),
                nn.LeakyReLU(0.2),
            ]
            channels = wider
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, CODE_SIDE, bias=False))
        initialise(self, initialisation)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The scores [B, 1] of images [B, 3, 64, 64] in [−1, 1]."""
        _require_shape("The critic", x_BCHW, (3, IMAGE_SIDE, IMAGE_SIDE))
        return self.layers(x_BCHW).flatten(1)


class LatentDiscriminator(nn.Module):
    """The latent discriminator Dz, which gives the logit that a latent was drawn from the prior.

    Args:
        latent_dim: the number m of latent dimensions (nz).
        width: the number of units of each hidden layer (ndf).
        layers: the number of linear layers (ndl).
    """

    def __init__(self, latent_dim: int = 128, width: int = 512, layers: int = 5) -> None:
        super().__init__()
        _require_at_least_one(latent_dim=latent_dim, width=width, layers=layers)
        self.latent_dim = latent_dim
        sizes = [latent_dim, *[width] * (layers - 1)]
        hidden: list[nn.Module] = []
        for size, next_size in itertools.pairwise(sizes):
            hidden += [nn.Linear(size, next_size), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*hidden, nn.Linear(sizes[-1], 1))

    def forward(self, z_BM11: Tensor) -> Tensor:
        """The logits [B] of latents [B, m, 1, 1]."""
        _require_shape("The latent discriminator", z_BM11, (self.latent_dim, 1, 1))
        return self.layers(z_BM11.flatten(1))[:, 0]


class _Scale(nn.Module):
    """A layer that multiplies by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def _trunk(width: int) -> list[nn.Module]:
    """The first layers of F and of E, from [B, 3, 64, 64] to [B, 8·width, 4, 4]."""
    return [
        nn.Conv2d(3, width, 4, stride=2, padding=1, bias=False),
        nn.ReLU(inplace=True),
        *_down(width, 2 * width),
        *_down(2 * width, 4 * width),
        *_down(4 * width, 8 * width),
    ]


def _down(channels: int, out_channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, out_channels, 4, stride=2, padding=1, bias=False),
        GlobalBatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


def _up(channels: int, out_channels: int) -> list[nn.Module]:
    return [
        nn.ConvTranspose2d(channels, out_channels, 4, stride=2, padding=1, bias=False),
        GlobalBatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


def _to_latent(
    channels: int, latent_dim: int, batch_norm: bool, scale: float = 1.0
) -> list[nn.Module]:
    """The last layers of F and of B, from [B, channels, 4, 4] to [B, m, 1, 1], without activation.

    The batch norm's output starts with variance 1; `scale` takes it to the variance of the prior.
    """
    layers: list[nn.Module] = [nn.Conv2d(channels, latent_dim, CODE_SIDE, bias=False)]
    if batch_norm:
        layers.append(GlobalBatchNorm2d(latent_dim))
        if scale != 1:
            layers.append(_Scale(scale))
    return layers


def _require_at_least_one(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"{name} is {size}, but it must be at least 1.")


def _require_shape(what: str, x_BCHW: Tensor, shape: tuple[int, int, int]) -> None:
    if x_BCHW.ndim != 4 or tuple(x_BCHW.shape[1:]) != shape:
        sizes = "×".join(map(str, shape))
        got = "×".join(map(str, x_BCHW.shape))
        raise InputError(f"{what} takes batches of {sizes} values, got a tensor of {got}.")
