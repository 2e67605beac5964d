"""The discretised logistic distribution of the 256 levels of a value of an image.

Images are on [−½, ½], where the level v covers [v/256 − ½, (v + 1)/256 − ½). The first and the last
level also take the tails, so the probabilities of a value sum to 1. With the ends a < b of a level
on the scale of the standard logistic,

    log p = log(σ(b) − σ(a)) = log σ(b) + log σ(−a) + log(1 − exp(a − b))

in which nothing cancels. At the edges a is −∞ or b is ∞.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencomp.losses import at_least_float32

LEVELS = 256
# The means of a likelihood are at the middle of the first and of the last level at the most.
EDGE = 0.5 - 0.5 / LEVELS


class LogisticPixels(nn.Module):
    """Discretised logistic values with one learnt scale for all of them.

    Args:
        scale: the starting value of the scale.
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self, levels_BCHW: Tensor, mean_BCHW: Tensor) -> Tensor:
        """log p of each image in nats, [B], in float32 at least.

        Args:
            levels_BCHW: the levels, 0..255, in any floating type.
            mean_BCHW: the means on [−½, ½].
        """
        with torch.autocast(mean_BCHW.device.type, enabled=False):
            mean_BCHW = at_least_float32(mean_BCHW)
            return log_probabilities(levels_BCHW, mean_BCHW, self.log_scale).sum((1, 2, 3))


def log_probabilities(levels: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log p of levels for given means and the log of the scale, which may be broadcast."""
    inverse = (-log_scale).exp()
    lower = (levels / LEVELS - 0.5 - mean) * inverse
    width = inverse / LEVELS
    below_upper = F.logsigmoid(lower + width).masked_fill(levels == LEVELS - 1, 0)
    above_lower = F.logsigmoid(-lower).masked_fill(levels == 0, 0)
    inside = (levels > 0) & (levels < LEVELS - 1)
    return below_upper + above_lower + inside * (-torch.expm1(-width)).log()


def levels_of(images_BCHW: Tensor) -> Tensor:
    """The levels 0..255 of uint8 images, or of floats in [0, 1), in a floating type."""
    if images_BCHW.is_floating_point():
        return (images_BCHW * LEVELS).floor()
    return images_BCHW.to(torch.get_default_dtype())


def centres_of(levels: Tensor) -> Tensor:
    """The middles of levels, on [−½, ½]."""
    return (levels + 0.5) / LEVELS - 0.5


def bytes_of(mean: Tensor) -> Tensor:
    """The levels in which means on [−½, ½] lie, uint8."""
    return ((mean + 0.5) * LEVELS).floor().clamp(0, LEVELS - 1).to(torch.uint8)
