"""The density ratio r = q/p of a Gaussian target q and the standard normal prior p."""

from __future__ import annotations

import numpy as np

from gencomp.coding.latent_model import Floats, Gaussian
from gencomp.errors import InputError


def log_ratio(target: Gaussian, x_ND: Floats) -> Floats:
    """ln r of candidates, float64 [N]."""
    residual_ND = (x_ND - target.mean_D) / target.scale_D
    return (x_ND**2 - residual_ND**2).sum(axis=1) / 2 - float(np.log(target.scale_D).sum())


def divergence(target: Gaussian) -> float:
    """KL(q || p) in nats."""
    m, s = target.mean_D, target.scale_D
    return float((s**2 + m**2 - 1 - 2 * np.log(s)).sum() / 2)


def deviation(target: Gaussian) -> float:
    """The standard deviation of ln r under q, in nats."""
    m, s = target.mean_D, target.scale_D
    return float(np.sqrt(((1 - s**2) ** 2 / 2 + m**2 * s**2).sum()))


def supremum(target: Gaussian) -> float:
    """The largest ln r, which is the Rényi divergence of order ∞, in nats.

    Raises:
        InputError: a scale is not below 1, so that the ratio has no maximum.
    """
    m, s = target.mean_D, target.scale_D
    if not (s < 1).all():
        raise InputError("The density ratio is bounded for scales below 1 only.")
    return float((m**2 / (2 * (1 - s**2)) - np.log(s)).sum())
