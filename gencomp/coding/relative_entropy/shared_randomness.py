"""Random numbers that the sender and the receiver of a single block both know.

They are words of Philox (`gencomp.coding.dither`), so any of them is found without those before it:

    key      (seed mod 2^32, seed div 2^32)
    counter  (row mod 2^32, row div 2^32, column, purpose)

A seed names a block: no two blocks of one stream may share it.
"""

from __future__ import annotations

import numpy as np

from gencomp.coding.dither import philox, require_seed
from gencomp.coding.latent_model import Floats
from gencomp.coding.relative_entropy.normals import quantiles

CANDIDATES, NOISE, NODES = 0, 1, 2

_VALUES_A_COUNTER = 8


def normals(seed: int, first: int, count: int, dimensions: int) -> Floats:
    """Candidates of a standard normal prior, float64 [count, dimensions].

    Each value is one of the 65,536 quantiles of `normals`.

    Args:
        seed: the seed of the block, 0..2^64 − 1.
        first: the number of the first candidate.
        count: the number of candidates.
        dimensions: the number of dimensions of the block.
    """
    columns = -(-dimensions // _VALUES_A_COUNTER)
    words = _words(seed, np.arange(first, first + count), columns, CANDIDATES)
    halves = words.astype("<u4").view("<u2").reshape(count, columns * _VALUES_A_COUNTER)
    return quantiles()[halves[:, :dimensions]]


def uniforms(seed: int, first: int, count: int, purpose: int = NOISE) -> Floats:
    """Two numbers in (0, 1) for each of `count` rows, float64 [count, 2], multiples of 2^-53."""
    words = _words(seed, np.arange(first, first + count), 1, purpose).reshape(count, 2, 2)
    high, low = words[..., 0] >> np.uint64(5), words[..., 1] >> np.uint64(7)
    return ((high << np.uint64(25)) + low).astype(np.float64) * 2.0**-52 + 2.0**-53


def _words(seed: int, rows: np.ndarray, columns: int, purpose: int) -> np.ndarray:
    """Words [rows, columns · 4], each below 2^32."""
    require_seed(seed)
    counters = np.empty((len(rows), columns, 4), np.uint64)
    whole = rows.astype(np.uint64)
    counters[..., 0] = (whole & np.uint64(0xFFFFFFFF))[:, None]
    counters[..., 1] = (whole >> np.uint64(32))[:, None]
    counters[..., 2], counters[..., 3] = np.arange(columns), purpose
    return philox(counters.reshape(-1, 4), (seed & 0xFFFFFFFF, seed >> 32)).reshape(len(rows), -1)
