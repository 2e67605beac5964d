"""Dither that a sender and a receiver derive from a seed, in integers and so alike everywhere.

The generator is Philox4x32-10 (Salmon, Moraes, Dror and Shaw, SC 2011). Its key is the seed, and
its counter names what the number is for:

    key      (seed mod 2^32, seed div 2^32)
    counter  (index mod 2^32, index div 2^32, layer, k div 4)  ──▶  word k mod 4  for latent k

numpy's own Philox has words of 64 bits, and torch's generators differ between a CPU and a GPU.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gencomp.errors import InputError

MAX_SEED = 2**64 - 1
MAX_INDEX = 2**64 - 1

_ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_WORD_BITS = np.uint64(32)


def philox(counters_N4: npt.NDArray[np.uint64], key: tuple[int, int]) -> npt.NDArray[np.uint64]:
    """The words of Philox4x32-10 for N counters, [N, 4], each below 2^32.

    Args:
        counters_N4: the four words of each counter, each below 2^32.
        key: the two words of the key, each below 2^32.
    """
    a, b, c, d = counters_N4.astype(np.uint64).T
    left, right = key
    for _ in range(_ROUNDS):
        # A product of two 32-bit words fits 64 bits exactly.
        first, second = _MULTIPLIERS[0] * a, _MULTIPLIERS[1] * c
        a = (second >> _WORD_BITS) ^ b ^ np.uint64(left)
        c = (first >> _WORD_BITS) ^ d ^ np.uint64(right)
        b, d = second & _LOW, first & _LOW
        left, right = (left + _KEY_STEPS[0]) & 0xFFFFFFFF, (right + _KEY_STEPS[1]) & 0xFFFFFFFF
    return np.stack([a, b, c, d], axis=1)


def unit_dither(
    seed: int, indices_B: npt.ArrayLike, latents: int, layer: int = 0
) -> npt.NDArray[np.float64]:
    """The dither of pictures in units of the quantizer's step, [B, latents].

    The values are (w + ½)/2^32 − ½ for words w. They lie inside (−½, ½) and are exact in float64.

    Args:
        seed: the seed that sender and receiver share, 0..2^64 − 1.
        indices_B: the index of each picture, 0..2^64 − 1; no two pictures may share (seed, index).
        latents: the number of latents.
        layer: the number of the layer of the code.

    Raises:
        InputError: the seed or an index lies outside its range.
    """
    require_seed(seed)
    indices = [int(index) for index in np.asarray(indices_B, dtype=object).reshape(-1)]
    for index in indices:
        if not 0 <= index <= MAX_INDEX:
            raise InputError(f"The index of a picture is 0 to {MAX_INDEX}, not {index}.")
    blocks = -(-latents // 4)
    whole_B = np.array(indices, dtype=np.uint64)
    counters = np.empty((len(indices), blocks, 4), dtype=np.uint64)
    counters[..., 0], counters[..., 1] = (whole_B & _LOW)[:, None], (whole_B >> _WORD_BITS)[:, None]
    counters[..., 2], counters[..., 3] = layer, np.arange(blocks)
    words = philox(counters.reshape(-1, 4), (seed & 0xFFFFFFFF, seed >> 32))
    words_BK = words.reshape(len(indices), 4 * blocks)[:, :latents]
    return (words_BK.astype(np.float64) + 0.5) * 2.0**-32 - 0.5


def require_seed(seed: int) -> None:
    """Refuse a number that cannot be a seed.

    Raises:
        InputError: the number lies outside 0..2^64 − 1.
    """
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"The seed of the dither is 0 to {MAX_SEED}, not {seed}.")
