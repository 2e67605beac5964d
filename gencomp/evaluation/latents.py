"""The latents of a system, and samples of the prior that they should follow."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gencomp.draws import Draws
from gencomp.system import Batch, System


def prior_samples(
    draws: Draws, dimensions: int, variance: float, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Samples of N(0, σ² I), one for each row of `draws`, [n, K], in float32 at least.

    Args:
        draws: the random numbers behind the samples.
        dimensions: the number K of latent dimensions.
        variance: the variance σ² of the prior.
        dtype: the type of the latents that the samples are compared with.
    """
    z_BK = draws.normal("prior", dimensions)
    return z_BK.to(torch.promote_types(dtype, z_BK.dtype)) * math.sqrt(variance)


def standardised(
    system: System, batch: Batch, encoding: Draws, sampling: Draws
) -> tuple[Tensor, Tensor] | None:
    """The latents of a batch and as many samples of the prior, both in units of its σ, [n, K].

    Args:
        system: a system in evaluation mode.
        batch: a batch of one process.
        encoding: the noise of a stochastic encoder.
        sampling: the random numbers behind the samples of the prior.

    Returns:
        (latents, samples), or None for a system whose images have no latents with a prior.
    """
    found = system.latents(batch, encoding)
    if found is None:
        return None
    z_BK, variance = found
    prior_BK = prior_samples(sampling, z_BK.shape[1], variance, z_BK.dtype)
    return z_BK / math.sqrt(variance), prior_BK / math.sqrt(variance)
