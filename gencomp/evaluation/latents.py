"""Latents of a system beside samples of the prior that they should follow."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from gencomp.draws import Draws
from gencomp.system import Batch, System
from gencomp.systems.dplc.base import ReconstructingSystem
from gencomp.systems.dplc.parts import to_signed


class Latents(NamedTuple):
    """[n, m] each, in units of the prior's standard deviation.

    Attributes:
        encoded: of the images of a batch.
        prior: as many samples.
    """

    encoded: Tensor
    prior: Tensor


def latents(system: System, batch: Batch, encoding: Draws, sampling: Draws) -> Latents | None:
    """Latents of a batch; None for a system without an encoder, or whose latents are free.

    Args:
        system: in evaluation mode.
        batch: of one process.
        encoding: noise of a stochastic encoder.
        sampling: what samples of the prior come from.
    """
    if not isinstance(system, ReconstructingSystem) or system.prior is None:
        return None
    with system.statistics(encoding):
        z_BM11 = system.encode(system.networks, to_signed(batch.images_BCHW), encoding)
    prior_BM11 = system.prior.sample(sampling, z_BM11.dtype)
    encoded_BM, prior_BM = z_BM11.flatten(1), prior_BM11.flatten(1)
    return Latents(encoded_BM / system.prior.scale, prior_BM / system.prior.scale)
