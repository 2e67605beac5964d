"""The payload of one image: its codes packed at a fixed length, or entropy-coded if shorter.

No bit says which of the two forms it is: a payload of the fixed length is packed, and a shorter one
is entropy-coded; where both have that length, it is packed. So codes have exactly one payload, any
other is refused, and a payload never exceeds ⌈T·N·log2 L⌉ bits and those of the salt, in whole
bytes. The salt (`gencomp.coding.noise`) is a number of a few bits; it comes behind the packed
symbols, and before the entropy-coded ones.
"""

from __future__ import annotations

from gencomp.coding import fixed_length
from gencomp.coding.entropy import MAX_SALT_BITS, EntropyCoder
from gencomp.coding.range_coder import damaged
from gencomp.coding.tables import Integers, Tables
from gencomp.errors import InputError


class PayloadCoder:
    """Writes and reads payloads of codes with the same statistics.

    Args:
        tables: the statistics of a code of N symbols.
        salt_bits: the number of bits of each payload's salt, 0..24.
    """

    def __init__(self, tables: Tables, salt_bits: int = 0) -> None:
        if not 0 <= salt_bits <= MAX_SALT_BITS:
            raise InputError(f"A salt has 0 to {MAX_SALT_BITS} bits, not {salt_bits}.")
        self._count, self._levels, self._salt_bits = tables.count, tables.levels, salt_bits
        self._entropy = EntropyCoder(tables)

    def pack(self, symbols_TN: Integers, salt: int = 0) -> bytes:
        """Write T codes of N symbols as bytes.

        Args:
            symbols_TN: integers 0..L−1.
            salt: a number of the stated number of bits.

        Raises:
            InputError: a symbol lies outside the alphabet.
        """
        bits = fixed_length.packed_bits(symbols_TN.size, self._levels)
        number = _without_padding(fixed_length.pack(symbols_TN, self._levels), bits)
        packed = _padded(number << self._salt_bits | salt, bits + self._salt_bits)
        coded = self._entropy.encode(symbols_TN, salt, self._salt_bits)
        return coded if len(coded) < len(packed) else packed

    def unpack(self, data: bytes, codes: int) -> tuple[Integers, int]:
        """Read `codes` codes, [T, N], and the salt.

        Raises:
            InputError: `data` is not a payload of so many codes; lengths are checked first.
        """
        count = codes * self._count
        bits = fixed_length.packed_bits(count, self._levels)
        most = -(-(bits + self._salt_bits) // 8)
        least = min(most, self._entropy.least_bytes(codes, self._salt_bits))
        if not least <= len(data) <= most:
            raise InputError(
                f"{count} symbols of {self._levels} levels take at least {least} and at most"
                f" {most} bytes, the code has {len(data)}."
            )
        if len(data) < most:
            return self._entropy.decode(data, codes, self._salt_bits)
        number = _without_padding(data, bits + self._salt_bits)
        packed = _padded(number >> self._salt_bits, bits)
        symbols_TN = fixed_length.unpack(packed, self._levels, count).reshape(codes, self._count)
        salt = number & ((1 << self._salt_bits) - 1)
        if len(self._entropy.encode(symbols_TN, salt, self._salt_bits)) < len(data):
            raise damaged()
        return symbols_TN, salt


def _padded(number: int, bits: int) -> bytes:
    """A number of so many bits, with zeros that fill the last byte."""
    length = -(-bits // 8)
    return (number << (8 * length - bits)).to_bytes(length, "big")


def _without_padding(data: bytes, bits: int) -> int:
    """The inverse of `_padded`.

    Raises:
        InputError: the padding is not zero.
    """
    number, padding = int.from_bytes(data, "big"), 8 * len(data) - bits
    if number & ((1 << padding) - 1):
        raise InputError("The packed code has bits set in its padding: it is damaged.")
    return number >> padding
