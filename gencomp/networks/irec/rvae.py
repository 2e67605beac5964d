"""The lossless model of Flamich, Havasi and Hernández-Lobato, *Compressing Images by Encoding Their
Latent Representations with Relative Entropy Coding*, NeurIPS 2020.

It is the bidirectional ResNet VAE of Kingma et al., NeurIPS 2016, without inverse autoregressive
flow, with which posteriors would not be Gaussian and could not be coded. With N layers of latents,

    image ─▶ first ─▶ up N−1 ─▶ … ─▶ up 1 ─▶ up 0        what the image says of the posteriors
    base ──▶ down 0 ─▶ down 1 ─▶ … ─▶ down N−1 ─▶ last ─▶ means of the likelihood

Layers are numbered in the order of coding, from the top down. As published, there are 24 layers of
32 channels between features of 160, which are 29,462,823 parameters together with the scale of the
likelihood (`gencomp.networks.logistic`). The lossy models are in `lossy`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencomp.networks.latents import (
    LatentNetwork,
    Noise,
    Normal,
    Passed,
    parts_of,
    rates_BC,
    shape_of,
)
from gencomp.networks.logistic import EDGE
from gencomp.networks.weight_norm import WeightNormConv2d, WeightNormConvTranspose2d

# The authors leave the logs of scales unbounded. A prior's is kept in these bounds, and so is the
# log of a posterior's scale over the prior's.
_LOG_SCALES = (-8.0, 5.0)
_RESIDUAL = 0.1


class Inferred(NamedTuple):
    """What the bottom-up pass says of a layer's posterior, [B, S, H, W]."""

    mean: Tensor
    log_scale: Tensor


class Heads(NamedTuple):
    """What the top-down pass says of a layer before its latents are known.

    Attributes:
        prior: the prior of the latents, [B, S, H, W].
        mean, log_scale: its part of the posterior, [B, S, H, W].
        features: what goes on beside the latents, [B, D, H, W].
    """

    prior: Normal
    mean: Tensor
    log_scale: Tensor
    features: Tensor

    def posterior(self, inferred: Inferred) -> Normal:
        """The posterior of the latents given those of the layers before."""
        prior_log_scale = self.prior.scale.log()
        relative = inferred.log_scale + self.log_scale - prior_log_scale
        log_scale = prior_log_scale + relative.clamp(*_LOG_SCALES)
        return Normal(inferred.mean + self.mean, log_scale.exp())


class Block(nn.Module):
    """One layer of latents with its parts of both passes.

    Convolutions of one input are one layer here, which is the same, as their weights are normalised
    by output channel.

    Args:
        deterministic: the number D of channels of the features.
        stochastic: the number S of channels of the latents.
        first: whether it is the first layer to be coded, where the bottom-up pass ends.
    """

    def __init__(self, deterministic: int, stochastic: int, first: bool) -> None:
        super().__init__()
        self.deterministic, self.stochastic, self.first = deterministic, stochastic, first
        d, s = deterministic, stochastic
        self.up_heads = WeightNormConv2d(d, 2 * s if first else 2 * s + d, 3, padding=1)
        if not first:
            self.up_last = WeightNormConv2d(d, d, 3, padding=1)
        self.down_heads = WeightNormConv2d(d, 4 * s + d, 3, padding=1)
        self.down_last = WeightNormConv2d(d + s, d, 3, padding=1)

    def up(self, h_BDHW: Tensor) -> tuple[Inferred, Tensor]:
        """The layer's part of the bottom-up pass, and the features for the next layer."""
        s = self.stochastic
        heads_BCHW = self.up_heads(F.elu(h_BDHW))
        inferred = Inferred(*parts_of(heads_BCHW[:, : 2 * s], s, s))
        if self.first:
            return inferred, h_BDHW
        step_BDHW = self.up_last(F.elu(heads_BCHW[:, 2 * s :]))
        return inferred, h_BDHW + _RESIDUAL * step_BDHW

    def heads(self, h_BDHW: Tensor) -> Heads:
        """What is known of the layer from the features h of the layers before it."""
        s, d = self.stochastic, self.deterministic
        heads_BCHW = self.down_heads(F.elu(h_BDHW))
        mean, log_scale, own_mean, own_log_scale = parts_of(heads_BCHW[:, : 4 * s], s, s, s, s)
        prior = Normal(mean, log_scale.clamp(*_LOG_SCALES).exp())
        return Heads(prior, own_mean, own_log_scale, heads_BCHW[:, -d:])

    def down(self, h_BDHW: Tensor, heads: Heads, z_BSHW: Tensor) -> Tensor:
        """The features for the next layer, once the latents are known."""
        joint_BCHW = torch.cat([heads.features, z_BSHW.to(heads.features.dtype)], dim=1)
        return h_BDHW + _RESIDUAL * self.down_last(F.elu(joint_BCHW))


class Rvae(LatentNetwork):
    """The ResNet VAE of images on [−½, ½], with latents of half the image's height and width.

    Args:
        blocks: the number of layers of latents.
        deterministic: the number of channels of the features.
        stochastic: the number of channels of the latents of each layer.
    """

    stride, least = 2, 2

    def __init__(self, blocks: int = 24, deterministic: int = 160, stochastic: int = 32) -> None:
        super().__init__()
        self.channels, self.units = (stochastic,) * blocks, (self.stride,) * blocks
        # The zeros on either side are those of TensorFlow's padding SAME.
        self.first = nn.Sequential(
            nn.ZeroPad2d((1, 2, 1, 2)), WeightNormConv2d(3, deterministic, 5, stride=2)
        )
        self.base_D = nn.Parameter(torch.zeros(deterministic))
        self.blocks = nn.ModuleList(
            Block(deterministic, stochastic, first=number == 0) for number in range(blocks)
        )
        self.last = WeightNormConvTranspose2d(deterministic, 3, 5, stride=2)

    def layers(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def up(self, x_BCHW: Tensor) -> list[Inferred]:
        """The bottom-up pass: what an image says of each layer's posterior."""
        found, h_BDHW = [], self.first(x_BCHW)
        for block in reversed(self.layers()):
            inferred, h_BDHW = block.up(h_BDHW)
            found.append(inferred)
        return found[::-1]

    def base(self, batch: int, height: int, width: int) -> Tensor:
        """The features before the first layer for images of a size, [B, D, H/2, W/2]."""
        return self.base_D[:, None, None].expand(batch, -1, height // 2, width // 2)

    def mean(self, h_BDHW: Tensor) -> Tensor:
        """The means of the likelihood from the features after the last layer, [B, 3, H, W]."""
        height, width = (2 * size for size in h_BDHW.shape[2:])
        x_BCHW = self.last(F.elu(h_BDHW))[:, :, 1 : 1 + height, 1 : 1 + width]
        return x_BCHW.clamp(-EDGE, EDGE)

    def forward(self, x_BCHW: Tensor, noise: Noise, from_prior: bool = False) -> Passed:
        """Pass images through the model.

        Args:
            x_BCHW: the images.
            noise: standard normal noise.
            from_prior: whether latents are drawn from the prior and not from the posterior.
        """
        inferred = self.up(x_BCHW)
        h_BDHW = self.base(len(x_BCHW), *x_BCHW.shape[2:])
        nats_BC = []
        for number, block in enumerate(self.layers()):
            heads = block.heads(h_BDHW)
            posterior = heads.posterior(inferred[number])
            drawn = heads.prior if from_prior else posterior
            z_BSHW = drawn.at(noise(number, shape_of(drawn.mean)))
            nats_BC.append(rates_BC(posterior, heads.prior, z_BSHW))
            h_BDHW = block.down(h_BDHW, heads, z_BSHW)
        return Passed(nats_BC, self.mean(h_BDHW))

    def sample(self, batch: int, height: int, width: int, noise: Noise) -> Tensor:
        """The means of the likelihood for latents from the prior."""
        h_BDHW = self.base(batch, height, width)
        for number, block in enumerate(self.layers()):
            heads = block.heads(h_BDHW)
            z_BSHW = heads.prior.at(noise(number, shape_of(heads.prior.mean)))
            h_BDHW = block.down(h_BDHW, heads, z_BSHW)
        return self.mean(h_BDHW)
