"""Units of rates."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from torch import Tensor

Number = TypeVar("Number", float, np.ndarray, Tensor)


def nats_to_bpp(nats: Number, pixels: int) -> Number:
    """Nats per image as bits per pixel; ``pixels`` is height times width, without channels."""
    return nats / (pixels * math.log(2))
