"""The encoders and the pixel model of variational autoencoders; the decoders are in `decoders`.

They follow Kingma and Welling, *Auto-Encoding Variational Bayes*, ICLR 2014; the sizes for MNIST
digits are those of Huang et al., ICML 2020. Encoders and decoders work on flattened images [B, n].

    deep      784-1024-1024-1024-2k     tanh     mlp_encoder(784, (1024,) * 3, k)
    linear    784-2k                             mlp_encoder(784, (), k)
    DCGAN     3×32×32-…-1024×2×2-2k     ReLU     dcgan_encoder(k), the mirror image of the decoder

For k = 2, 10 and 100, the deep encoder has 2,907,140, 2,923,540 and 3,108,040 parameters, and the
deep decoder 2,905,872, 2,914,064 and 3,006,224.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gencomp.networks.batch_norm import GlobalBatchNorm2d
from gencomp.networks.decoders import DCGAN_SIDE, initialise_dcgan, mlp


class Posterior(NamedTuple):
    """The posterior q(z|x) = N(mean, diag(exp(log variance))) of each image; both are [B, k]."""

    mean_BK: Tensor
    log_variance_BK: Tensor

    @classmethod
    def of(cls, code_BC: Tensor) -> Posterior:
        """The posterior that an encoder's output [B, 2k] describes, in float32 at least."""
        code_BC = code_BC.to(torch.promote_types(code_BC.dtype, torch.float32))
        return cls(*code_BC.chunk(2, dim=1))

    def at(self, normals_BK: Tensor) -> Tensor:
        """The samples z [B, k] that belong to given standard normal numbers."""
        return self.mean_BK + (self.log_variance_BK / 2).exp() * normals_BK

    def kl_B(self) -> Tensor:
        """The divergence KL(q(z|x) ‖ N(0, I)) of each image in nats."""
        log_variance_BK = self.log_variance_BK
        return 0.5 * (self.mean_BK**2 + log_variance_BK.exp() - 1 - log_variance_BK).sum(1)


def mlp_encoder(values: int, widths: Sequence[int], latent_dim: int) -> nn.Sequential:
    """An encoder from images [B, n] to the mean and log variance of q(z|x), [B, 2k].

    It has tanh between its linear layers.
    """
    return mlp((values, *widths, 2 * latent_dim))


def dcgan_encoder(latent_dim: int, width: int = 128, channels: int = 3) -> nn.Sequential:
    """An encoder from images [B, channels·32·32] to the mean and log variance of q(z|x), [B, 2k].

    Args:
        latent_dim: the number k of latent dimensions.
        width: the number of channels after the first layer.
        channels: the number of channels of the image.
    """
    layers: list[nn.Module] = [
        nn.Unflatten(1, (channels, DCGAN_SIDE, DCGAN_SIDE)),
        nn.Conv2d(channels, width, 4, stride=2, padding=1),
        nn.ReLU(inplace=True),
    ]
    for narrow, wide in itertools.pairwise((width, 2 * width, 4 * width, 8 * width)):
        layers += [
            nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=False),
            GlobalBatchNorm2d(wide),
            nn.ReLU(inplace=True),
        ]
    side = DCGAN_SIDE // 2**4
    encoder = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * width * side**2, 2 * latent_dim))
    initialise_dcgan(encoder)
    return encoder


class GaussianPixels(nn.Module):
    """The pixel model p(x|z) = N(f(z), s² I) with one variance s² for all pixels.

    Args:
        variance: the variance s², or its starting value if it is learnt.
        learnt: whether log s² is a parameter.
    """

    log_variance: Tensor

    def __init__(self, variance: float, learnt: bool) -> None:
        super().__init__()
        log_variance = torch.tensor(math.log(variance))
        if learnt:
            self.log_variance = nn.Parameter(log_variance)
        else:
            self.register_buffer("log_variance", log_variance)

    def forward(self, x_BN: Tensor, mean_BN: Tensor) -> Tensor:
        """log p(x|z) of each image in nats, [B], with all constants, in float32 at least."""
        with torch.autocast(x_BN.device.type, enabled=False):
            mean_BN = mean_BN.to(torch.promote_types(mean_BN.dtype, torch.float32))
            squares_B = (x_BN - mean_BN).square().sum(1)
            log_normaliser = x_BN.shape[1] * (math.log(2 * math.pi) + self.log_variance)
            return -0.5 * (squares_B * torch.exp(-self.log_variance) + log_normaliser)
