"""A fixed-length code, which packs N symbols of an alphabet of L levels into ⌈N·log2 L⌉ bits.

The symbols are the digits of one integer in base L, the first symbol being the most significant
digit. The integer is written in ⌈N·log2 L⌉ bits, most significant bit first, and zero bits at the
end fill the last byte. For L = 2^b that is b bits a symbol, one symbol after the other.

An array of symbols is read in row-major order: a code [channels, rows, columns] is read channel by
channel, and each channel row by row. With the two levels of `gencomp.quantizer`, bit 1 is +0.5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gencomp.errors import InputError

_LEAF = 64


def packed_bits(count: int, levels: int) -> int:
    """The exact number of bits ⌈count·log2(levels)⌉ of `count` symbols with `levels` levels."""
    _require_sizes(count, levels)
    if _is_power_of_two(levels):
        return count * (levels.bit_length() - 1)
    return (levels**count - 1).bit_length()


def pack(symbols: Any, levels: int) -> bytes:
    """Pack integer symbols into ⌈packed_bits / 8⌉ bytes.

    Args:
        symbols: an array of integers 0..levels−1 (numpy, or a tensor on the CPU) of any shape.
        levels: the size L of the alphabet, at least 2.

    Raises:
        InputError: a symbol is not an integer or lies outside the alphabet.
    """
    flat = np.asarray(symbols).reshape(-1)
    _require_sizes(flat.size, levels)
    if flat.size == 0:
        return b""
    if flat.dtype.kind not in "iu":
        raise InputError(f"Symbols must be integers, got numbers of type {flat.dtype}.")
    if int(flat.min()) < 0 or int(flat.max()) >= levels:
        raise InputError(
            f"Symbols run from {int(flat.min())} to {int(flat.max())}, allowed are 0 to "
            f"{levels - 1}."
        )
    if _is_power_of_two(levels):
        return np.packbits(_to_bits(flat.astype(np.int64), levels.bit_length() - 1)).tobytes()
    bits = packed_bits(flat.size, levels)
    length = -(-bits // 8)
    return (_from_digits(flat.tolist(), levels) << (8 * length - bits)).to_bytes(length, "big")


def unpack(data: bytes, levels: int, count: int) -> npt.NDArray[np.int64]:
    """Unpack `count` symbols, [count]; the inverse of `pack`.

    Raises:
        InputError: `data` does not have the length of `count` symbols, has a bit set in its
            padding, or holds a number that `count` symbols cannot give.
    """
    bits = packed_bits(count, levels)
    length = -(-bits // 8)
    if len(data) != length:
        raise InputError(
            f"{count} symbols of {levels} levels take {length} bytes, the packed code has "
            f"{len(data)}."
        )
    padding = 8 * length - bits
    if length and data[-1] & ((1 << padding) - 1):
        raise InputError("The packed code has bits set in its padding: it is damaged.")
    if _is_power_of_two(levels):
        width = levels.bit_length() - 1
        bits_NW = np.unpackbits(np.frombuffer(data, np.uint8), count=bits).reshape(count, width)
        return bits_NW.astype(np.int64) @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))
    number = int.from_bytes(data, "big") >> padding
    if number >= levels**count:
        raise InputError(
            f"The packed code is no code of {count} symbols of {levels} levels: it is damaged."
        )
    return np.array(_to_digits(number, levels, count), dtype=np.int64)


def _to_bits(symbols_N: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.uint8]:
    shifts = np.arange(width - 1, -1, -1, dtype=np.int64)
    return ((symbols_N[:, None] >> shifts) & 1).astype(np.uint8)


def _from_digits(digits: list[int], base: int) -> int:
    """The number that the digits stand for, joined from halves: digit by digit is quadratic."""
    if len(digits) <= _LEAF:
        number = 0
        for digit in digits:
            number = number * base + digit
        return number
    half = len(digits) // 2
    low = digits[half:]
    return _from_digits(digits[:half], base) * base ** len(low) + _from_digits(low, base)


def _to_digits(number: int, base: int, count: int) -> list[int]:
    if count <= _LEAF:
        digits = [0] * count
        for position in range(count - 1, -1, -1):
            number, digits[position] = divmod(number, base)
        return digits
    low_count = count - count // 2
    high, low = divmod(number, base**low_count)
    return _to_digits(high, base, count - low_count) + _to_digits(low, base, low_count)


def _is_power_of_two(levels: int) -> bool:
    return levels & (levels - 1) == 0


def _require_sizes(count: int, levels: int) -> None:
    if levels < 2:
        raise InputError(f"A fixed-length code needs at least 2 levels, not {levels}.")
    if count < 0:
        raise InputError(f"A code cannot hold {count} symbols.")
