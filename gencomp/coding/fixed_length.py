"""A fixed-length code, which packs N symbols of an alphabet of L levels into ⌈N·log2 L⌉ bits.

The symbols are the digits of one integer in base L, the first symbol being the most significant
digit. The integer is written in ⌈N·log2 L⌉ bits, most significant bit first, and zero bits at the
end fill the last byte. For L = 2^b that is b bits a symbol, one symbol after the other. For other L
the time to convert an integer grows with its square, so an integer stands for at most 160·w
symbols, where w is the largest number with L^w < 2^63. Longer codes are several integers, each one
but the last of so many symbols and in whole bytes, which are at most 0.1 % more bits.

An array of symbols is read in row-major order: a code [channels, rows, columns] is read channel by
channel, and each channel row by row. With the two levels of `gencomp.quantizer`, bit 1 is +0.5.
"""

from __future__ import annotations

from functools import cache, lru_cache
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from gencomp.errors import InputError

# One integer stands for the symbols of so many words of 63 bits, where L is no power of two.
_WORDS = 160


def packed_bits(count: int, levels: int) -> int:
    """The number of bits of `count` symbols with `levels` levels, ⌈count·log2(levels)⌉.

    It is a little more for codes of several integers (see the module).
    """
    _require_sizes(count, levels)
    if _is_power_of_two(levels):
        return count * (levels.bit_length() - 1)
    block = _WORDS * _word(levels)
    blocks = max(0, count - 1) // block
    whole = 8 * -(-_bits(block, levels) // 8) if blocks else 0
    return blocks * whole + _bits(count - blocks * block, levels)


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
        return _pack_bits(flat, levels.bit_length() - 1)
    counts = _block_counts(flat.size, levels)
    words = _to_words(flat, levels)
    blocks = (words[_WORDS * i : _WORDS * (i + 1)] for i in range(len(counts)))
    return b"".join(map(_pack_block, blocks, counts, repeat(levels)))


def unpack(data: bytes, levels: int, count: int) -> npt.NDArray[np.int64]:
    """Unpack `count` symbols, [count]; the inverse of `pack`.

    Raises:
        InputError: `data` does not have the length of `count` symbols, has a bit set in its
            padding, or holds a number that `count` symbols cannot give.
    """
    length = -(-packed_bits(count, levels) // 8)
    if len(data) != length:
        raise InputError(
            f"{count} symbols of {levels} levels take {length} bytes, the packed code has "
            f"{len(data)}."
        )
    if _is_power_of_two(levels):
        return _unpack_bits(data, levels.bit_length() - 1, count)
    words: list[int] = []
    at = 0
    for size in _block_counts(count, levels):
        end = at + -(-_bits(size, levels) // 8)
        words += _unpack_block(data[at:end], size, levels)
        at = end
    return _from_words(words, levels, count)


def _pack_bits(symbols_N: npt.NDArray[Any], width: int) -> bytes:
    type_ = ">u1" if width <= 8 else ">u8"
    bits_NW = np.unpackbits(symbols_N.astype(type_)[:, None].view(np.uint8), axis=1)
    return np.packbits(bits_NW[:, bits_NW.shape[1] - width :]).tobytes()


def _unpack_bits(data: bytes, width: int, count: int) -> npt.NDArray[np.int64]:
    _require_padding(data, count * width)
    type_ = np.dtype(">u1" if width <= 8 else ">u8")
    bits_NW = np.zeros((count, 8 * type_.itemsize), np.uint8)
    used_NW = np.unpackbits(np.frombuffer(data, np.uint8), count=count * width)
    bits_NW[:, bits_NW.shape[1] - width :] = used_NW.reshape(count, width)
    return np.packbits(bits_NW, axis=1).view(type_)[:, 0].astype(np.int64)


def _block_counts(count: int, levels: int) -> list[int]:
    """The number of symbols of each integer."""
    block = _WORDS * _word(levels)
    blocks = max(0, count - 1) // block
    return [block] * blocks + [count - blocks * block] * (count > 0)


def _pack_block(words: list[int], count: int, levels: int) -> bytes:
    bits = _bits(count, levels)
    length = -(-bits // 8)
    return (_joined(words, levels) << (8 * length - bits)).to_bytes(length, "big")


def _unpack_block(data: bytes, count: int, levels: int) -> list[int]:
    bits = _bits(count, levels)
    _require_padding(data, bits)
    number = int.from_bytes(data, "big") >> (8 * len(data) - bits)
    if number >= _power(levels, count):
        raise InputError(
            f"The packed code is no code of {count} symbols of {levels} levels: it is damaged."
        )
    return _parted(number, levels, -(-count // _word(levels)))


def _require_padding(data: bytes, bits: int) -> None:
    if data and data[-1] & ((1 << (8 * len(data) - bits)) - 1):
        raise InputError("The packed code has bits set in its padding: it is damaged.")


def _to_words(symbols_N: npt.NDArray[Any], levels: int) -> list[int]:
    """The digits of a larger base, levels^w, which have w symbols each.

    The first word of the last integer has fewer symbols: zeros stand before them.
    """
    word = _word(levels)
    padded_N = np.insert(
        symbols_N.astype(np.int64),
        _first(len(symbols_N), levels),
        np.zeros(-len(symbols_N) % word, np.int64),
    )
    words_K = np.zeros(len(padded_N) // word, np.int64)
    for symbols_K in padded_N.reshape(-1, word).T:
        words_K *= levels
        words_K += symbols_K
    return words_K.tolist()


def _from_words(words: list[int], levels: int, count: int) -> npt.NDArray[np.int64]:
    """The inverse of `_to_words`, [count]."""
    word = _word(levels)
    words_K = np.array(words, np.int64)
    padded_KW = np.empty((len(words), word), np.int64)
    for place in range(word - 1, -1, -1):
        shorter_K = words_K // levels
        padded_KW[:, place] = words_K - shorter_K * levels
        words_K = shorter_K
    first = _first(count, levels)
    return np.delete(padded_KW.reshape(-1), slice(first, first + -count % word))


def _first(count: int, levels: int) -> int:
    """The place of the first symbol of the last integer."""
    block = _WORDS * _word(levels)
    return max(0, count - 1) // block * block


def _joined(words: list[int], levels: int) -> int:
    """The number that the words stand for, joined from halves: word by word is quadratic."""
    if len(words) == 1:
        return words[0]
    low = len(words) // 2
    high = _joined(words[:-low], levels)
    return high * _power(levels, low * _word(levels)) + _joined(words[-low:], levels)


def _parted(number: int, levels: int, count: int) -> list[int]:
    """The inverse of `_joined`, for `count` words."""
    if count == 1:
        return [number]
    low = count // 2
    high, rest = divmod(number, _power(levels, low * _word(levels)))
    return _parted(high, levels, count - low) + _parted(rest, levels, low)


@cache
def _word(levels: int) -> int:
    """The number of symbols whose digits fit into one signed integer of 64 bits."""
    count = 1
    while levels ** (count + 1) < 1 << 63:
        count += 1
    return count


@lru_cache(64)
def _power(levels: int, exponent: int) -> int:
    return levels**exponent


def _bits(count: int, levels: int) -> int:
    return (_power(levels, count) - 1).bit_length()


def _is_power_of_two(levels: int) -> bool:
    return levels & (levels - 1) == 0


def _require_sizes(count: int, levels: int) -> None:
    if levels < 2:
        raise InputError(f"A fixed-length code needs at least 2 levels, not {levels}.")
    if count < 0:
        raise InputError(f"A code cannot hold {count} symbols.")
