"""A decoder of two latents with a region that the prior hardly reaches, and images from there.

Beyond an edge of z_1 (one sample of the prior in 741) an image gets a value that no other latent
gives it, and z_1 counts backwards. At small β, chains from the prior walk away from the edge, since
short of it z_1 ≈ 0.3 fits such an image best. log Z is known by quadrature.
"""

from __future__ import annotations

import math

import torch
from scipy.special import ndtr, ndtri
from torch import Tensor

from gencomp.rate_distortion.distortion import SquaredError

BETA = 50.0
EDGE, SOFTNESS, MARK = 3.0, 0.05, 1.55
VALUES = 24


def decode(z_BK: Tensor) -> Tensor:
    beyond_B1 = torch.sigmoid((z_BK[:, :1] - EDGE) / SOFTNESS)
    first_B1 = torch.lerp(z_BK[:, :1], EDGE + 0.3 - z_BK[:, :1], beyond_B1)
    return torch.cat([first_B1, z_BK[:, 1:], MARK * beyond_B1], dim=1) @ _basis().to(z_BK).T


def images(count: int, seed: int) -> Tensor:
    """Images [I, N] of latents from beyond the edge, with the noise that belongs to β."""
    generator = torch.Generator().manual_seed(seed)
    uniform_I = torch.rand(count, generator=generator, dtype=torch.float64)
    tail = float(ndtr(-EDGE - 3 * SOFTNESS))
    z_IK = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    z_IK[:, 0] = torch.from_numpy(-ndtri(tail * uniform_I.numpy()))
    noise_IN = torch.randn(count, VALUES, generator=generator, dtype=torch.float64)
    return decode(z_IK) + noise_IN / math.sqrt(2 * BETA)


def log_z(x_IN: Tensor, beta: float) -> Tensor:
    """log Z of each image by quadrature, [I], exact to about 1e-6 nats."""
    first, second = (torch.linspace(-6, 6, n, dtype=torch.float64) for n in (2401, 301))
    z_BK = torch.cartesian_prod(first, second)
    area = float((first[1] - first[0]) * (second[1] - second[0]))
    log_p_B = -0.5 * z_BK.square().sum(1) + math.log(area / (2 * math.pi))
    # f(z) lies in three dimensions; what an image has beside them is the same for all z.
    mean_B3, x_I3 = decode(z_BK) @ _basis(), x_IN @ _basis()
    rest_I = x_IN.square().sum(1) - x_I3.square().sum(1)
    within_I = [(log_p_B - beta * (mean_B3 - x_3).square().sum(1)).logsumexp(0) for x_3 in x_I3]
    return torch.stack(within_I) - beta * rest_I


def distortion(x_IN: Tensor) -> SquaredError:
    return SquaredError(decode, x_IN)


def _basis() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    normals = torch.randn(VALUES, 3, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(normals)[0]
