"""The multi-scale structural similarity, MS-SSIM (Wang, Simoncelli and Bovik, 2003).

The window is an 11×11 Gaussian with σ = 1.5, at every place where it lies inside the image. The
constants are (0.01·255)² and (0.03·255)². The next scale is the mean of blocks of 2×2 pixels; an
odd side is first made even by repeating its last row or column. The contrast-structure terms of all
scales but the last, and the full similarity of the last scale, are averaged over the image for each
colour channel, clipped at 0, raised to their weights and multiplied. The result is the mean over
the channels.

Five scales take 11 pixels a side on the smallest of them. A smaller image is measured on as many
scales as it has, with their weights divided by the sum of these weights: an image of 64×64 pixels
has three. Such values are comparable only with values of the same number of scales.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gencomp.errors import InputError

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
TAPS = 11
SIGMA = 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def scale_weights(height: int, width: int) -> tuple[float, ...]:
    """The weights of the scales that images of this size have, the finest scale first.

    Raises:
        InputError: a side is shorter than the window.
    """
    side, scales = min(height, width), 0
    while side >= TAPS and scales < len(WEIGHTS):
        side, scales = (side + 1) // 2, scales + 1
    if not scales:
        raise InputError(
            f"ms_ssim needs images of at least {TAPS}×{TAPS} pixels, but these are {height}×{width}"
        )
    used = WEIGHTS[:scales]
    return tuple(weight / sum(used) for weight in used)


def ms_ssim(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """The similarity of each pair of images, float64 [B] in [0, 1].

    Args:
        a_BCHW, b_BCHW: uint8 images.

    Raises:
        InputError: the images are too small for a single scale.
    """
    weights = scale_weights(*a_BCHW.shape[2:])
    # On a CPU one pair after the other, since a pair's values still fit into a core's cache.
    size = 1 if a_BCHW.device.type == "cpu" else len(a_BCHW)
    pairs = zip(a_BCHW.split(size), b_BCHW.split(size), strict=True)
    return torch.cat([multi_scale(a.double(), b.double(), weights) for a, b in pairs])


def multi_scale(a_BCHW: Tensor, b_BCHW: Tensor, weights: Sequence[float]) -> Tensor:
    """The similarity of each pair of images with given weights of the scales, [B] in [0, 1].

    Args:
        a_BCHW, b_BCHW: images on 0..255 in a floating type, which the result has too.
        weights: the weight of each scale, the finest first, at most as many as `scale_weights` has.
    """
    batch, channels, height, width = a_BCHW.shape
    a, b = (x.reshape(-1, 1, height, width) for x in (a_BCHW, b_BCHW))
    result_N = a.new_ones(len(a))
    for scale, weight in enumerate(weights):
        if scale:
            a, b = _halved(a), _halved(b)
        luminance, contrast = similarity(a, b)
        last = scale == len(weights) - 1
        term_N = (luminance * contrast if last else contrast).flatten(1).mean(1)
        result_N = result_N * term_N.clamp_min(0) ** weight
    return result_N.reshape(batch, channels).mean(1)


def similarity(a_N1HW: Tensor, b_N1HW: Tensor) -> tuple[Tensor, Tensor]:
    """The luminance and contrast-structure terms at each place of the window.

    Args:
        a_N1HW, b_N1HW: images on 0..255 in a floating type.
    """
    mean_a, mean_b = _smoothed(a_N1HW), _smoothed(b_N1HW)
    variance_a = _smoothed(a_N1HW.square()) - mean_a.square()
    variance_b = _smoothed(b_N1HW.square()) - mean_b.square()
    covariance = _smoothed(a_N1HW * b_N1HW) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a.square() + mean_b.square() + _C1)
    contrast = (2 * covariance + _C2) / (variance_a + variance_b + _C2)
    return luminance, contrast


def _smoothed(x_N1HW: Tensor) -> Tensor:
    places = torch.arange(TAPS, dtype=x_N1HW.dtype, device=x_N1HW.device) - TAPS // 2
    window = torch.exp(-places.square() / (2 * SIGMA**2))
    window = window / window.sum()
    if x_N1HW.dtype == torch.float64 and x_N1HW.device.type == "cpu":
        # Convolutions in this type take ten times as long as those in float32.
        weights = window.tolist()
        return _shifted_sum(_shifted_sum(x_N1HW, weights, dim=2), weights, dim=3)
    rows = F.conv2d(x_N1HW, window.reshape(1, 1, TAPS, 1))
    return F.conv2d(rows, window.reshape(1, 1, 1, TAPS))


def _shifted_sum(x: Tensor, weights: Sequence[float], dim: int) -> Tensor:
    """The sum of neighbours along a dimension, each times its weight, where all of them exist."""
    size = x.shape[dim] - len(weights) + 1
    total = x.narrow(dim, 0, size) * weights[0]
    for place, weight in enumerate(weights[1:], start=1):
        total.add_(x.narrow(dim, place, size), alpha=weight)
    return total


def _halved(x_N1HW: Tensor) -> Tensor:
    height, width = x_N1HW.shape[2:]
    even = F.pad(x_N1HW, (0, width % 2, 0, height % 2), mode="replicate")
    return F.avg_pool2d(even, 2)
