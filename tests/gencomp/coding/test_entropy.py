"""The entropy coder: exact round trips, exact integers, near the entropy, and no second reading."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gencomp.coding import entropy, fixed_length, payload
from gencomp.coding.tables import PRECISION, Tables, cumulative, empty, fit
from gencomp.errors import InputError
from tests.waiting import PATIENCE


def draw(codes: int, count: int, levels: int, seed: int = 0) -> np.ndarray:
    """Codes whose symbols mostly repeat the symbol three before."""
    generator = np.random.default_rng(seed)
    symbols = generator.integers(0, levels, (codes, count))
    for place in range(3, count):
        repeats = generator.random(codes) < 0.9
        symbols[repeats, place] = symbols[repeats, place - 3]
    return symbols


@cache
def tables(count: int, levels: int) -> Tables:
    return fit(draw(1000, count, levels), levels)


@pytest.mark.parametrize("levels", [2, 3, 5, 16, 17, 256])
@pytest.mark.parametrize("codes", [1, 2, 7])
def test_round_trip(levels: int, codes: int) -> None:
    known = tables(40, levels)
    for seed in range(1, 30):
        symbols = draw(codes, 40, levels, seed)
        data = entropy.encode(symbols, known)
        assert (entropy.decode(data, known, codes) == symbols).all()
        assert (payload.unpack(payload.pack(symbols, known), known, codes) == symbols).all()


@given(st.data())
def test_round_trip_of_whatever_symbols(data: st.DataObject) -> None:
    levels = data.draw(st.sampled_from([2, 3, 17]))
    codes = data.draw(st.integers(1, 3))
    flat = data.draw(st.lists(st.integers(0, levels - 1), min_size=12 * codes, max_size=12 * codes))
    symbols = np.array(flat).reshape(codes, 12)
    for known in (tables(12, levels), empty(12, levels)):
        stream = entropy.encode(symbols, known)
        assert (entropy.decode(stream, known, codes) == symbols).all()
        packed = payload.pack(symbols, known)
        assert (payload.unpack(packed, known, codes) == symbols).all()
        assert len(packed) <= -(-fixed_length.packed_bits(12 * codes, levels) // 8)


@pytest.mark.parametrize("levels", [2, 3, 16])
def test_streams_lie_in_the_interval_of_exact_integers(levels: int) -> None:
    """A range coder in Python's integers, with the tables' own numbers, gives the same interval:
    nothing is rounded on the way to constriction."""
    known = tables(40, levels)
    for seed in range(1, 20):
        symbols = draw(1, 40, levels, seed)
        contexts = known.contexts(symbols)[0]
        low, size, words = 0, 2**64 - 1, 0
        for place, (symbol, context) in enumerate(zip(symbols[0], contexts, strict=True)):
            edges = cumulative(known.counts_NCL[place, context])
            start = int(edges[symbol]) + int(symbol)
            width = int(edges[symbol + 1] - edges[symbol]) + 1
            low, size = low + (size >> PRECISION) * start, (size >> PRECISION) * width
            if size < 2**32:
                low, size, words = low << 32, size << 32, words + 1
        bits = 64 + 32 * words
        data = entropy.encode(symbols, known)
        point = int.from_bytes(data, "big") << (bits - 8 * len(data))
        assert low <= point < low + size
        # One byte less has no point in there.
        shorter = bits - 8 * (len(data) - 1)
        assert -(-low >> shorter) << shorter >= low + size


def test_lengths_are_near_the_entropy() -> None:
    """A byte and a half above −log2 of the model's probability at most, on average half a byte."""
    known = tables(128, 2)
    excess = []
    for symbols in draw(200, 128, 2, seed=3):
        contexts = known.contexts(symbols[None])[0]
        counts = known.counts_NCL[np.arange(128), contexts] + 0.5
        bits = -np.log2(counts[np.arange(128), symbols] / counts.sum(1)).sum()
        excess.append(8 * len(entropy.encode(symbols[None], known)) - bits)
    assert max(excess) < 12 and np.mean(excess) < 5


def test_codes_that_are_like_the_earlier_ones_get_cheaper() -> None:
    known = tables(40, 2)
    one = np.random.default_rng(5).integers(0, 2, (1, 40))
    single = len(entropy.encode(one, known))
    many = entropy.encode(np.repeat(one, 50, axis=0), known)
    assert len(many) < 25 * single
    assert (entropy.decode(many, known, 50) == one).all()


def test_nothing_known_costs_no_more_than_packing() -> None:
    symbols = np.random.default_rng(0).integers(0, 2, (1, 64))
    assert payload.pack(symbols, empty(64, 2)) == fixed_length.pack(symbols, 2)


class TestRefusals:
    @given(st.binary(max_size=24))
    def test_of_random_bytes(self, data: bytes) -> None:
        """Whatever is read is what would have been written."""
        known = tables(40, 3)
        for codes in (1, 2):
            try:
                symbols = entropy.decode(data, known, codes)
            except InputError as error:
                assert "damaged" in str(error)
            else:
                assert entropy.encode(symbols, known) == data

    @given(st.binary(max_size=24))
    @settings(max_examples=300)
    def test_of_random_payloads(self, data: bytes) -> None:
        known = tables(40, 3)
        try:
            symbols = payload.unpack(data, known, 2)
        except InputError:
            return
        assert data in (fixed_length.pack(symbols, 3), entropy.encode(symbols, known))

    def test_of_streams_that_are_not_the_shortest(self) -> None:
        known = tables(128, 2)
        data = entropy.encode(draw(1, 128, 2, 9), known)
        for other in (data + b"\0", data + bytes(9)):
            with pytest.raises(InputError, match="damaged"):
                entropy.decode(other, known, 1)

    def test_of_payloads_that_are_too_long(self) -> None:
        with pytest.raises(InputError, match="at most 16 bytes, the code has 17"):
            payload.unpack(bytes(17), tables(128, 2), 1)


def test_golden_stream() -> None:
    """Files must be read for ever: the same bytes on every machine and with every version."""
    counts = np.arange(16 * 4 * 2, dtype=np.int64).reshape(4, 16, 2) % 11
    back = np.array([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3]])
    known = Tables(back, counts)
    symbols = np.array([[0, 1, 1, 0], [1, 1, 0, 1], [0, 0, 1, 1]] * 5)
    assert entropy.encode(symbols, known).hex() == GOLDEN
    assert (entropy.decode(bytes.fromhex(GOLDEN), known, 15) == symbols).all()


def test_another_process_reads_them() -> None:
    known, symbols = tables(40, 3), draw(2, 40, 3, 7)
    program = (
        "from tests.gencomp.coding.test_entropy import *\n"
        f"data = bytes.fromhex('{entropy.encode(symbols, known).hex()}')\n"
        "assert (entropy.decode(data, tables(40, 3), 2) == draw(2, 40, 3, 7)).all()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE)


GOLDEN = "3f13be73b9dd"
