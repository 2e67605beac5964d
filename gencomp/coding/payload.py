"""The codes of one image as one payload: packed at a fixed length, or entropy-coded if shorter.

Which of the two it is costs no bit: a payload of the fixed length is packed, a shorter one is
entropy-coded. So a payload never exceeds the stated rate, ⌈T·N·log2 L⌉ bits in whole bytes.
"""

from __future__ import annotations

from gencomp.coding import entropy, fixed_length
from gencomp.coding.tables import Integers, Tables
from gencomp.errors import InputError


def pack(symbols_TN: Integers, tables: Tables) -> bytes:
    """T codes of N symbols to bytes.

    Raises:
        InputError: a symbol outside the alphabet.
    """
    packed = fixed_length.pack(symbols_TN, tables.levels)
    coded = entropy.encode(symbols_TN, tables)
    return coded if len(coded) < len(packed) else packed


def unpack(data: bytes, tables: Tables, codes: int) -> Integers:
    """Bytes to `codes` codes, [T, N].

    Raises:
        InputError: no payload of so many codes.
    """
    count = codes * tables.count
    fixed = -(-fixed_length.packed_bits(count, tables.levels) // 8)
    if len(data) > fixed:
        raise InputError(
            f"{count} symbols of {tables.levels} levels take at most {fixed} bytes, the code has "
            f"{len(data)}."
        )
    if len(data) < fixed:
        return entropy.decode(data, tables, codes)
    return fixed_length.unpack(data, tables.levels, count).reshape(codes, tables.count)
