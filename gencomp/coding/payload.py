"""The payload of one image: its codes packed at a fixed length, or entropy-coded if shorter.

No bit says which of the two forms it is: a payload of the fixed length is packed, and a shorter one
is entropy-coded. So a payload never exceeds the stated rate, ⌈T·N·log2 L⌉ bits in whole bytes.
"""

from __future__ import annotations

from gencomp.coding import entropy, fixed_length
from gencomp.coding.tables import Integers, Tables
from gencomp.errors import InputError


def pack(symbols_TN: Integers, tables: Tables) -> bytes:
    """Write T codes of N symbols as bytes.

    Raises:
        InputError: a symbol lies outside the alphabet.
    """
    packed = fixed_length.pack(symbols_TN, tables.levels)
    coded = entropy.encode(symbols_TN, tables)
    return coded if len(coded) < len(packed) else packed


def unpack(data: bytes, tables: Tables, codes: int) -> Integers:
    """Read `codes` codes, [T, N].

    Raises:
        InputError: `data` is not a payload of so many codes.
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
