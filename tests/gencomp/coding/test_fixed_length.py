"""Packed symbols: documented order, exact sizes, round trips, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gencomp.coding.fixed_length import pack, packed_bits, unpack
from gencomp.errors import InputError


@st.composite
def codes(draw: st.DrawFn) -> tuple[int, list[int]]:
    levels = draw(st.integers(2, 70))
    return levels, draw(st.lists(st.integers(0, levels - 1), max_size=200))


@given(codes())
def test_round_trip(code: tuple[int, list[int]]) -> None:
    levels, symbols = code
    data = pack(np.array(symbols, dtype=np.int64), levels)
    assert len(data) == math.ceil(packed_bits(len(symbols), levels) / 8)
    assert unpack(data, levels, len(symbols)).tolist() == symbols


@given(codes())
def test_one_definition_for_every_alphabet(code: tuple[int, list[int]]) -> None:
    """The bytes are the base-L number, shifted to the front of its bytes."""
    levels, symbols = code
    number = 0
    for symbol in symbols:
        number = number * levels + symbol
    bits = packed_bits(len(symbols), levels)
    length = -(-bits // 8)
    expected = (number << (8 * length - bits)).to_bytes(length, "big")
    assert pack(np.array(symbols, dtype=np.int64), levels) == expected


def test_documented_order() -> None:
    code_CHW = np.zeros((2, 2, 4), dtype=np.uint8)
    code_CHW[0, 0, 0] = code_CHW[0, 1, 3] = code_CHW[1, 0, 1] = 1
    assert pack(code_CHW, 2) == bytes([0b1000_0001, 0b0100_0000])
    assert pack(np.array([3, 0, 2]), 4) == bytes([0b11_00_10_00])
    assert pack(np.array([2, 1]), 3) == bytes([7 << 4])


@pytest.mark.parametrize("n", [1, 2, 8, 128])
def test_two_levels_take_two_bytes_a_channel(n: int) -> None:
    symbols = torch.randint(0, 2, (n, 4, 4), generator=torch.Generator().manual_seed(n))
    data = pack(symbols, 2)
    assert len(data) == 2 * n
    assert unpack(data, 2, 16 * n).reshape(n, 4, 4).tolist() == symbols.tolist()


def test_rate() -> None:
    assert packed_bits(8 * 16, 2) == 128
    assert packed_bits(8 * 16, 2) / (64 * 64) == 0.03125
    assert packed_bits(128, 3) == math.ceil(128 * math.log2(3)) == 203
    assert packed_bits(0, 3) == 0 and pack(np.zeros(0), 3) == b""


@pytest.mark.parametrize("levels", [3, 5, 7, 100, 255, 300])
def test_large_codes_of_odd_alphabets(levels: int) -> None:
    """Several integers, at most 0.1 % longer than one; a code of one integer is exact."""
    block = 128 * int(63 / math.log2(levels))
    for count in (block - 1, block, block + 1, 3 * block, 40_000):
        symbols = np.random.default_rng(count).integers(0, levels, count)
        data = pack(symbols, levels)
        exact = count * math.log2(levels)
        assert len(data) == math.ceil(packed_bits(count, levels) / 8)
        assert exact <= packed_bits(count, levels) <= 1.001 * exact + 1
        assert packed_bits(count, levels) == math.ceil(exact) or count > block
        assert np.array_equal(unpack(data, levels, count), symbols)


def test_sizes_of_codes_that_nobody_has_are_known_at_once() -> None:
    """The largest picture has 10^6 tiles; this took minutes when it was one power of 3."""
    assert packed_bits(2**40, 3) == pytest.approx(2**40 * math.log2(3), rel=1e-3)


def test_damaged_codes_are_refused() -> None:
    with pytest.raises(InputError, match="take 2 bytes, the packed code has 3"):
        unpack(bytes(3), 2, 16)
    with pytest.raises(InputError, match="take 2 bytes, the packed code has 1"):
        unpack(bytes(1), 2, 16)
    with pytest.raises(InputError, match="padding"):
        unpack(bytes([0b0000_0001]), 2, 7)
    with pytest.raises(InputError, match="no code of 2 symbols of 3 levels"):
        unpack(bytes([9 << 4]), 3, 2)
    with pytest.raises(InputError, match="padding"):
        unpack(bytes([1]), 3, 2)
    with pytest.raises(InputError, match="take 0 bytes"):
        unpack(b"x", 2, 0)


def test_bad_symbols_are_refused() -> None:
    with pytest.raises(InputError, match="0 to 2, allowed are 0 to 1"):
        pack(np.array([0, 2]), 2)
    with pytest.raises(InputError, match="-1 to 0"):
        pack(np.array([0, -1]), 2)
    with pytest.raises(InputError, match="must be integers"):
        pack(np.array([0.5]), 2)
    with pytest.raises(InputError, match="at least 2 levels"):
        pack(np.array([0]), 1)
