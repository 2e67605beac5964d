"""Systematic resampling of an image's chains (Kitagawa: Monte Carlo filter and smoother, 1996)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def effective_sample_size(log_weight_IM: Tensor) -> Tensor:
    """The 1/Σ W² of the normalised weights, [I], between 1 and the number of chains."""
    return torch.softmax(log_weight_IM, -1).square().sum(-1).reciprocal()


def systematic_ancestors(log_weight_IM: Tensor, uniform_I: Tensor) -> Tensor:
    """Chain indices [I, M] in which chain m occurs M·W_m times, rounded up or down."""
    chains = log_weight_IM.shape[1]
    cumulative_IM = torch.softmax(log_weight_IM, -1).cumsum(-1)
    cumulative_IM = cumulative_IM / cumulative_IM[:, -1:]
    rungs_M = torch.arange(chains, dtype=torch.float64, device=log_weight_IM.device)
    points_IM = (rungs_M + uniform_I[:, None]) / chains
    return torch.searchsorted(cumulative_IM, points_IM).clamp(max=chains - 1)


def log_mean_exp(log_weight_IM: Tensor) -> Tensor:
    """The log of each image's mean weight, [I]."""
    return torch.logsumexp(log_weight_IM, -1) - math.log(log_weight_IM.shape[1])
