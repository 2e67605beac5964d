"""The batch statistics of a network whose weights are final."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def reestimate_statistics(
    network: nn.Module, batches: Iterable[Tensor | tuple[Tensor, ...]]
) -> None:
    """Replace the running statistics of a network by the plain average over the given batches.

    Args:
        network: the network, which runs in training mode meanwhile; its weights do not change.
        batches: this rank's rows of each global batch, as the network's input; a tuple holds
            several arguments.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    mode, momenta = network.training, [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # with None torch takes a plain average
    network.train()
    for batch in batches:
        network(*batch) if isinstance(batch, tuple) else network(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(mode)
