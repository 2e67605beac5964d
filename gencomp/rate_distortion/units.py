"""The conversion between units of rates."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from torch import Tensor

Number = TypeVar("Number", float, np.ndarray, Tensor)


def nats_to_bpp(nats: Number, pixels: int) -> Number:
    """Convert nats per image to bits per pixel, where ``pixels`` is height times width."""
    return nats / (pixels * math.log(2))
