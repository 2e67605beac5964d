"""A smooth linear decoder of 784 pixels and images for it, from formulas: no data, no training."""

from __future__ import annotations

import torch
from torch import Tensor

VALUES = 784


def surrogate(latent_dim: int, images: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weight [784, K], bias [784] and images [I, 784], float64; indices i, j, t start at 1.

    W = 0.1 cos(0.37 i j), b = 0.2 sin(0.11 i), x_t = 0.5 + 0.5 sin(0.05 i t + 0.3 t).
    """
    i = torch.arange(1, VALUES + 1, dtype=torch.float64)
    j = torch.arange(1, latent_dim + 1, dtype=torch.float64)
    t = torch.arange(1, images + 1, dtype=torch.float64)[:, None]
    weight_NK = 0.1 * torch.cos(0.37 * i[:, None] * j)
    return weight_NK, 0.2 * torch.sin(0.11 * i), 0.5 + 0.5 * torch.sin(0.05 * i * t + 0.3 * t)
