"""The stack: push and pop are inverses in any order, initial bits come back, damage is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gencomp.coding.ans import Stack, pseudorandom_words
from gencomp.coding.tables import PRECISION, Integers, frequencies
from gencomp.errors import InputError

Step = tuple[Integers, Integers]


def steps(seed: int, count: int) -> list[Step]:
    """Symbols and their frequencies, in shared rows and in rows of their own."""
    generator = np.random.default_rng(seed)
    found: list[Step] = []
    for number in range(count):
        levels, width = int(generator.integers(1, 30)), int(generator.integers(0, 50))
        shape = (levels,) if number % 2 else (width, levels)
        rows = frequencies(generator.integers(0, 60, shape) ** 2)
        found.append((generator.integers(0, levels, width), rows))
    return found


@given(st.integers(0, 2**32), st.integers(0, 12))
@settings(max_examples=50)
def test_what_is_pushed_is_popped(seed: int, count: int) -> None:
    stack = Stack()
    for symbols, rows in (known := steps(seed, count)):
        stack.push(symbols, rows)
    reader = Stack.read(stack.data())
    for symbols, rows in reversed(known):
        assert np.array_equal(reader.pop(rows, count=len(symbols)), symbols)
    reader.finish()


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(0, 30))
@settings(max_examples=50)
def test_what_is_popped_is_pushed_back(seed: int, count: int, carried: int) -> None:
    """Samples of any frequencies, then other symbols; the reader finds the same initial words."""
    words = pseudorandom_words((seed, 1), 0, carried)
    stack = Stack(words)
    drawn = [(stack.pop(rows, count=len(one)), rows) for one, rows in steps(seed, count)]
    for symbols, rows in (known := steps(seed + 1, count)):
        stack.push(symbols, rows)
    reader = Stack.read(stack.data())
    for symbols, rows in reversed(known):
        assert np.array_equal(reader.pop(rows, count=len(symbols)), symbols)
    for symbols, rows in reversed(drawn):
        reader.push(symbols, rows)
    assert np.array_equal(reader.remaining()[:carried], words)
    reader.finish(carried)


def test_length() -> None:
    """64 bits of state, and −log2 of the probability of 100,000 symbols within 1e-4."""
    row = frequencies(np.array([10, 1, 5, 80, 2]))
    symbols = np.random.default_rng(0).choice(5, 100_000, p=row / row.sum())
    stack = Stack()
    stack.push(symbols, row)
    bits = float((PRECISION - np.log2(row[symbols])).sum())
    assert bits < 8 * len(stack.data()) < 1.0001 * bits + 64 + 8


def test_initial_bits_are_those_that_were_popped() -> None:
    """A stack that pops 3,200 bits takes them with it, and not a word more."""
    even = np.full(2, 1 << PRECISION - 1)
    stack = Stack()
    bits = stack.pop(even, count=3200)
    assert 1500 < bits.sum() < 1700
    assert len(stack.data()) <= 12
    stack.push(np.zeros(3200, np.int64), even)
    assert 400 <= len(stack.data()) <= 412


def test_an_exhausted_reader_is_told() -> None:
    stack = Stack()
    stack.push(np.zeros(10, np.int64), np.full(2, 1 << PRECISION - 1))
    reader = Stack.read(stack.data())
    with pytest.raises(InputError, match="damaged"):
        reader.pop(np.full(2, 1 << PRECISION - 1), count=10_000)


def test_foreign_bytes_are_refused() -> None:
    for data in (b"", b"\0", b"abc\0"):
        with pytest.raises(InputError, match="damaged"):
            Stack.read(data)
    for data in (b"\1", b"abcdefgh", bytes(100) + b"\1"):
        with pytest.raises(InputError, match="damaged"):
            Stack.read(data).finish()


def test_golden_stream() -> None:
    stack = Stack()
    stack.pop(frequencies(np.array([3, 1, 4])), count=20)
    stack.push(np.arange(20) % 5, frequencies(np.array([2, 7, 1, 8, 2])))
    assert stack.data().hex() == GOLDEN


GOLDEN = "7f14fac2f60f072a0a9247"
