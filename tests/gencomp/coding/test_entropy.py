"""The entropy coder: exact round trips, exact integers, near the entropy, and no second reading."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gencomp.coding.entropy import EntropyCoder
from gencomp.coding.tables import PRECISION, Tables, empty, fit, frequencies
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


@cache
def coder(count: int, levels: int) -> EntropyCoder:
    return EntropyCoder(tables(count, levels))


@pytest.mark.parametrize("levels", [2, 3, 5, 16, 17, 256])
@pytest.mark.parametrize("codes", [1, 2, 7, 40])
def test_round_trip(levels: int, codes: int) -> None:
    """Streams have salt or none, and blocks of all sizes."""
    made = coder(40, levels)
    for seed in range(1, 12):
        symbols = draw(codes, 40, levels, seed)
        for salt, bits in ((0, 0), (seed, 8), (1, 1)):
            data = made.encode(symbols, salt, bits)
            found, found_salt = made.decode(data, codes, bits)
            assert found.dtype == np.int64 and (found == symbols).all() and found_salt == salt
            assert len(data) >= made.least_bytes(codes, bits)


@given(st.data())
def test_round_trip_of_whatever_symbols(data: st.DataObject) -> None:
    levels = data.draw(st.sampled_from([2, 3, 17]))
    codes = data.draw(st.integers(1, 9))
    flat = data.draw(st.lists(st.integers(0, levels - 1), min_size=12 * codes, max_size=12 * codes))
    symbols = np.array(flat).reshape(codes, 12)
    for made in (coder(12, levels), EntropyCoder(empty(12, levels))):
        stream = made.encode(symbols)
        assert (made.decode(stream, codes)[0] == symbols).all()
        assert len(stream) >= made.least_bytes(codes)


def plainly_coded(symbols: np.ndarray, known: Tables, salt: int, bits: int) -> tuple[int, int, int]:
    """The interval of a range coder in Python's integers: low, size, and the number of bits."""
    counts = known.counts_NCL.astype(object)
    low, size, words = 0, 2**64 - 1, 0

    def put(start: int, width: int) -> None:
        nonlocal low, size, words
        low, size = low + (size >> PRECISION) * start, (size >> PRECISION) * width
        if size < 2**32:
            low, size, words = low << 32, size << 32, words + 1

    if bits:
        put(salt << PRECISION - bits, 1 << PRECISION - bits)

    def depth(place: int) -> int:
        return max([depth(place - back) + 1 for back in known.back_NP[place] if back], default=0)

    places = sorted(range(known.count), key=lambda place: (depth(place), place))
    first, last = 0, min(len(symbols), 4)
    while first < len(symbols):
        seen = []
        for place in places:
            for code in symbols[first:last]:
                context = 0
                for back in known.back_NP[place]:
                    context = context * known.levels + (int(code[place - back]) if back else 0)
                row = frequencies(counts[place, context].astype(np.int64))
                put(int(row[: code[place]].sum()), int(row[code[place]]))
                seen.append((place, context, int(code[place])))
        for cell in seen:
            counts[cell] += 32
        first, last = last, min(len(symbols), last + max(4, last // 2))
    return low, size, 64 + 32 * words


@pytest.mark.parametrize("levels", [2, 3, 16, 17])
def test_streams_are_those_of_exact_integers(levels: int) -> None:
    """A range coder in Python's integers, with the tables' own numbers, gives the same interval:
    nothing is rounded on the way to constriction. The stream is the first number in it that ends in
    the most zero bytes, among numbers of two lengths."""
    for seed in range(1, 8):
        symbols = draw((1, 6, 30)[seed % 3], 40, levels, seed)
        low, size, bits = plainly_coded(symbols, tables(40, levels), seed, 8)
        enough = next(n for n in range(bits) if 1 << bits - 8 * n <= size)
        data = coder(40, levels).encode(symbols, seed, 8)
        inside = {}
        for length in (enough - 1, enough):
            first = -(-low >> bits - 8 * length)
            if first << bits - 8 * length < low + size:
                inside[length] = first
        assert enough in inside and len(data) == min(inside)
        assert int.from_bytes(data, "big") == inside[len(data)]


def test_lengths_are_near_the_entropy() -> None:
    """A byte and a half above −log2 of the model's probability at most, on average half a byte."""
    known, excess = tables(128, 2), []
    for symbols in draw(200, 128, 2, seed=3):
        contexts = known.contexts(symbols[None])[0]
        counts = known.counts_NCL[np.arange(128), contexts] + 0.5
        bits = -np.log2(counts[np.arange(128), symbols] / counts.sum(1)).sum()
        excess.append(8 * len(coder(128, 2).encode(symbols[None])) - bits)
    assert max(excess) < 12 and np.mean(excess) < 5


def test_codes_that_are_like_the_earlier_ones_get_cheaper() -> None:
    one = np.random.default_rng(5).integers(0, 2, (1, 40))
    single = len(coder(40, 2).encode(one))
    many = coder(40, 2).encode(np.repeat(one, 50, axis=0))
    assert len(many) < 25 * single
    assert (coder(40, 2).decode(many, 50)[0] == one).all()


def test_lengths_bound_what_a_stream_holds() -> None:
    """A stream of few bytes never holds very many codes.

    This is so even where all symbols are the likeliest ones of certain tables.
    """
    known = Tables(np.zeros((64, 4), np.int64), np.tile([10**6, 0], (64, 16, 1)))
    made = EntropyCoder(known)
    for codes in (1, 4, 5, 100, 3000):
        data = made.encode(np.zeros((codes, 64), np.int64))
        assert made.least_bytes(codes) <= len(data)
        assert 64 * codes * 0.0007 <= 8 * (len(data) + 1)
    assert made.least_bytes(10**6) > 5000


class TestRefusals:
    @given(st.binary(max_size=24), st.sampled_from([0, 8]))
    def test_of_random_bytes(self, data: bytes, salt_bits: int) -> None:
        """Whatever is read is what would have been written."""
        for codes in (1, 2, 9):
            try:
                symbols, salt = coder(40, 3).decode(data, codes, salt_bits)
            except InputError as error:
                assert "damaged" in str(error)
            else:
                assert coder(40, 3).encode(symbols, salt, salt_bits) == data

    @given(st.integers(0, 2**32), st.integers(0, 10**6), st.integers(1, 255))
    @settings(max_examples=200)
    def test_of_changed_bytes_or_other_symbols(self, seed: int, at: int, mask: int) -> None:
        symbols = draw(6, 40, 2, seed)
        data = bytearray(coder(40, 2).encode(symbols))
        data[at % len(data)] ^= mask
        try:
            found, _ = coder(40, 2).decode(bytes(data), 6)
        except InputError:
            return
        assert (found != symbols).any()

    def test_of_streams_that_are_not_the_shortest(self) -> None:
        data = coder(128, 2).encode(draw(1, 128, 2, 9))
        for other in (data + b"\0", data + bytes(9)):
            with pytest.raises(InputError, match="damaged"):
                coder(128, 2).decode(other, 1)

    def test_stop_where_the_stream_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A short stream of a million codes is left after as many symbols as it can hold, a byte of
        which may hold 12,000."""
        known = Tables(np.zeros((64, 4), np.int64), np.tile([10**6, 0], (64, 16, 1)))
        made, seen = EntropyCoder(known), 0
        models = made._models

        def counted(rows_GB, weights_RL):  # type: ignore[no-untyped-def]
            nonlocal seen
            seen += rows_GB.size
            return models(rows_GB, weights_RL)

        monkeypatch.setattr(made, "_models", counted)
        with pytest.raises(InputError, match="damaged"):
            made.decode(b"\x80", 10**4)
        assert seen < 64 * 1000


def test_golden_stream() -> None:
    """Files must be read for ever: the same bytes on every machine and with every version."""
    counts = np.arange(16 * 4 * 2, dtype=np.int64).reshape(4, 16, 2) % 11
    back = np.array([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3]])
    made = EntropyCoder(Tables(back, counts))
    symbols = np.array([[0, 1, 1, 0], [1, 1, 0, 1], [0, 0, 1, 1]] * 5)
    assert made.encode(symbols, 5, 3).hex() == GOLDEN
    found, salt = made.decode(bytes.fromhex(GOLDEN), 15, 3)
    assert (found == symbols).all() and salt == 5


def test_another_process_reads_them() -> None:
    symbols = draw(2, 40, 3, 7)
    program = (
        "from tests.gencomp.coding.test_entropy import *\n"
        f"data = bytes.fromhex('{coder(40, 3).encode(symbols).hex()}')\n"
        "assert (coder(40, 3).decode(data, 2)[0] == draw(2, 40, 3, 7)).all()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE)


GOLDEN = "a261144a25c4"
