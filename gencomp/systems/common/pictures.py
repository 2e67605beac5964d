"""Pictures as codecs take them."""

from __future__ import annotations

import numpy as np

from gencomp.coding.container import MAX_SIDE
from gencomp.errors import InputError


def required(image_HWC: np.ndarray) -> np.ndarray:
    """An image, which must be one that the codec takes.

    Raises:
        InputError: it has another type, has no pixels, or has a side of more than 65535 pixels.
    """
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3:
        raise InputError(
            "this codec takes RGB images of 8 bits,"
            f" not {image_HWC.dtype} of shape {'×'.join(map(str, image_HWC.shape))}"
        )
    require_size(*image_HWC.shape[:2])
    return image_HWC


def require_size(height: int, width: int) -> None:
    """Raise `InputError` unless a container can hold an image of this size."""
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise InputError(
            f"this codec takes images of 1 to {MAX_SIDE} pixels a side, not {height}×{width}"
        )
