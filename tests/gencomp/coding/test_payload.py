"""The payload: the shorter of two forms, a salt in either, lengths that are checked first."""

from __future__ import annotations

import tracemalloc
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gencomp.coding import fixed_length
from gencomp.coding.payload import PayloadCoder
from gencomp.coding.tables import Tables, empty
from gencomp.errors import InputError
from tests.gencomp.coding.test_entropy import draw, tables


@cache
def coder(count: int, levels: int, salt_bits: int = 0) -> PayloadCoder:
    return PayloadCoder(tables(count, levels), salt_bits)


@given(st.data())
def test_round_trip_of_whatever_symbols(data: st.DataObject) -> None:
    levels = data.draw(st.sampled_from([2, 3, 17]))
    codes = data.draw(st.integers(1, 5))
    salt_bits = data.draw(st.sampled_from([0, 1, 3, 8, 24]))
    salt = data.draw(st.integers(0, 2**salt_bits - 1))
    flat = data.draw(st.lists(st.integers(0, levels - 1), min_size=12 * codes, max_size=12 * codes))
    symbols = np.array(flat).reshape(codes, 12)
    for known in (tables(12, levels), empty(12, levels)):
        made = PayloadCoder(known, salt_bits)
        packed = made.pack(symbols, salt)
        found, found_salt = made.unpack(packed, codes)
        assert (found == symbols).all() and found_salt == salt
        bits = fixed_length.packed_bits(12 * codes, levels) + salt_bits
        assert len(packed) <= -(-bits // 8)


def test_nothing_known_costs_no_more_than_packing() -> None:
    symbols = np.random.default_rng(0).integers(0, 2, (1, 64))
    assert PayloadCoder(empty(64, 2)).pack(symbols) == fixed_length.pack(symbols, 2)
    salted = PayloadCoder(empty(64, 2), 8).pack(symbols, 0xA5)
    assert salted == fixed_length.pack(symbols, 2) + b"\xa5"


def test_the_salt_costs_its_bits() -> None:
    """Entropy-coded payloads: a byte of salt is a byte, within one in each of 40."""
    codes = draw(40, 128, 2, 3)
    sizes = {
        bits: [len(coder(128, 2, bits).pack(one[None], 1)) for one in codes] for bits in (0, 8)
    }
    assert np.mean(sizes[8]) - np.mean(sizes[0]) == pytest.approx(1, abs=0.15)
    assert set(np.subtract(sizes[8], sizes[0])) <= {0, 1, 2}


@given(st.binary(max_size=24), st.sampled_from([0, 3, 8]))
@settings(max_examples=300)
def test_random_payloads_are_refused_or_are_what_would_be_written(
    data: bytes, salt_bits: int
) -> None:
    made = coder(40, 3, salt_bits)
    try:
        symbols, salt = made.unpack(data, 2)
    except InputError:
        return
    assert data == made.pack(symbols, salt)


def test_packed_codes_that_are_shorter_when_coded_are_refused() -> None:
    symbols = draw(3, 128, 2, 5)
    assert len(coder(128, 2).pack(symbols)) < 48
    with pytest.raises(InputError, match="never writes this data: it is damaged"):
        coder(128, 2).unpack(fixed_length.pack(symbols, 2), 3)


class TestLengths:
    def test_of_payloads_that_are_too_long(self) -> None:
        with pytest.raises(InputError, match="at most 16 bytes, the code has 17"):
            coder(128, 2).unpack(bytes(17), 1)
        with pytest.raises(InputError, match="at most 17 bytes, the code has 18"):
            coder(128, 2, 8).unpack(bytes(18), 1)

    @pytest.mark.parametrize("levels", [2, 3, 16, 256])
    @pytest.mark.parametrize("codes", [64, 16384, 2**20])
    def test_of_payloads_that_are_too_short(self, levels: int, codes: int) -> None:
        """What 29 bytes of 8192² or 65535² claim: refused by arithmetic alone.

        Even certain symbols cost 0.0007 bits, so the last case is that of any tables."""
        certain = np.zeros((128, empty(128, levels).counts_NCL.shape[1], levels), np.int64)
        certain[..., 0] = 10**7
        sure = Tables(empty(128, levels).back_NP, certain)
        for known in (tables(128, levels), sure):
            made = PayloadCoder(known, 8)
            if known is sure and codes < 16384:
                continue
            tracemalloc.start()
            try:
                with pytest.raises(InputError, match=f"{codes * 128} symbols .* take at least"):
                    made.unpack(bytes(2), codes)
                assert tracemalloc.get_traced_memory()[1] < 2e6
            finally:
                tracemalloc.stop()

    @pytest.mark.parametrize("bits", [-1, 25])
    def test_of_salts(self, bits: int) -> None:
        with pytest.raises(InputError, match=f"A salt has 0 to 24 bits, not {bits}"):
            PayloadCoder(empty(4, 2), bits)
