"""The errors of means over few images, which are unknown (not a number) for a single one."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import stdtrit

LEVEL = 0.95


def standard_error(values_N: np.ndarray) -> float:
    """The standard error of the mean of independent values."""
    if len(values_N) < 2:
        return math.nan
    return float(values_N.std(ddof=1)) / math.sqrt(len(values_N))


def student_interval(values_N: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The interval of the mean of independent values by Student's t.

    It covers the mean as often as it says for normal values, whatever their number, and nearly as
    often for others unless they are few and skewed.
    """
    if len(values_N) < 2:
        return math.nan, math.nan
    reach = float(stdtrit(len(values_N) - 1, 0.5 + level / 2)) * standard_error(values_N)
    mean = float(values_N.mean())
    return mean - reach, mean + reach
