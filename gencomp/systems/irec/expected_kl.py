"""The expected divergence of each latent, which both sides of a file know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


class ExpectedKl(nn.Module):
    """The mean KL of a latent of each channel of each layer, in nats; 0 before it is set.

    Args:
        channels: the number of channels of each layer, in the order of coding.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.layers = len(channels)
        for layer, size in enumerate(channels):
            self.register_buffer(f"layer_{layer}", torch.zeros(size))

    def of(self, layer: int) -> Tensor:
        """The mean of each channel of a layer, float32 [C]."""
        return self.get_buffer(f"layer_{layer}")

    def set(self, means_C: Sequence[Tensor]) -> None:
        """Set the means of all layers."""
        for layer, mean_C in enumerate(means_C):
            self.of(layer).copy_(mean_C)

    def __iter__(self) -> Iterator[Tensor]:
        return (self.of(layer) for layer in range(self.layers))
