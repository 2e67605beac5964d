"""The quantiles of the standard normal distribution from which all candidates are made.

Entry u of the table is Φ⁻¹((u + ½)/65536), rounded to multiples of 2^−28, so a value drawn by 16
random bits lies within ±4.33 and has variance 0.99998 and kurtosis 2.9992. The table is stored as
integers, because logarithms and error functions differ in their last bit between libraries, and a
hash guards it: a receiver with another table would decode other values.
"""

from __future__ import annotations

import functools
import hashlib
from importlib import resources

import numpy as np
import numpy.typing as npt

SIZE = 1 << 16
_BITS = 28
_FILE = "normal_quantiles.npy"  # int32, the upper half: entries 32768 … 65535 times 2^28
_HASH = "95f5644700846f80821ffde93f21da03"


@functools.cache
def quantiles() -> npt.NDArray[np.float64]:
    """The table, float64 [65536]; its entries are exact in float64. Do not write into it.

    Raises:
        RuntimeError: the installed table is damaged.
    """
    with (resources.files(__package__) / _FILE).open("rb") as file:
        upper = np.load(file).astype("<i4")
    if hashlib.blake2b(upper.tobytes(), digest_size=16).hexdigest() != _HASH:
        raise RuntimeError(f"{_FILE} is not the table that gencomp ships; install gencomp again.")
    table = np.ldexp(np.concatenate([-upper[::-1], upper]).astype(np.float64), -_BITS)
    table.flags.writeable = False
    return table


@functools.cache
def quantiles_float32() -> npt.NDArray[np.float32]:
    """The table for scores that only a sender computes."""
    table = quantiles().astype(np.float32)
    table.flags.writeable = False
    return table
