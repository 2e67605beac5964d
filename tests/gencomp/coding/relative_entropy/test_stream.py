"""The coder of blocks: round trips of any codes, what they cost, and damage."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gencomp.coding.coders import Coder, from_bytes, to_bytes
from gencomp.coding.range_coder import Decoder, Encoder
from gencomp.coding.relative_entropy import EFFORTS, BlockCode, Key, coder, encode, schedules
from gencomp.coding.relative_entropy.overhead import T32, like_a_model
from gencomp.errors import InputError


def code(schedule: int, candidates: int, pieces: int, seed: int = 0) -> BlockCode:
    indices = np.random.default_rng(seed).integers(0, candidates, pieces)
    return BlockCode(schedule if pieces else 0, candidates, indices)


def equal(a: list[list[BlockCode]], b: list[list[BlockCode]]) -> bool:
    return [len(layer) for layer in a] == [len(layer) for layer in b] and all(
        x[:2] == y[:2] and x.indices.dtype == y.indices.dtype and np.array_equal(x[2], y[2])
        for one, other in zip(a, b, strict=True)
        for x, y in zip(one, other, strict=True)
    )


@st.composite
def layers(draw: Callable[..., int]) -> list[list[BlockCode]]:
    """Layers of blocks with one number of candidates, and any numbers of pieces."""
    candidates = draw(st.one_of(st.integers(2, 1 << 16), st.sampled_from([36, 4096, 1 << 16])))
    pieces = st.one_of(st.integers(0, 30), st.integers(0, 400))
    block = st.builds(
        code, st.integers(0, schedules.COUNT - 1), st.just(candidates), pieces, st.integers(0, 99)
    )
    return draw(st.lists(st.lists(block, max_size=6), max_size=4))  # type: ignore[no-any-return]


@given(layers(), st.integers(0, 9))
@settings(max_examples=80, deadline=None)
def test_round_trip(value: list[list[BlockCode]], more: int) -> None:
    dimensions = [len(layer) + more for layer in value]
    data = to_bytes(coder(dimensions), value)
    assert equal(from_bytes(coder(dimensions), data), value)


def test_large_layers() -> None:
    """A thousand blocks, one of them with thousands of pieces, and one number that is unusual."""
    value = [[code(5, 4102, 13, seed) for seed in range(1000)], [], [code(7, 4102, 9000)]]
    value[0][17] = code(0, 4102, 0)
    dimensions = [300_000, 5, 1 << 14]
    data = to_bytes(coder(dimensions), value)
    assert equal(from_bytes(coder(dimensions), data), value)


def test_nothing_takes_no_bytes_to_speak_of() -> None:
    for dimensions in ([], [0], [7, 7]):
        value: list[list[BlockCode]] = [[] for _ in dimensions]
        data = to_bytes(coder(dimensions), value)
        assert len(data) <= 2
        assert equal(from_bytes(coder(dimensions), data), value)


class TestCost:
    @pytest.mark.parametrize("effort", EFFORTS)
    def test_a_block_takes_less_than_8_bits_beside_its_indices(self, effort: str) -> None:
        """The blocks are few of very different sizes and kinds, or many alike."""
        made = EFFORTS[effort]  # type: ignore[index]
        for blocks, split in ((like_a_model(24), 4), ([T32] * 60, 2)):
            codes = encode(blocks, Key(), made._replace(beams=2))
            layered = [codes[first::split] for first in range(split)]
            data = to_bytes(coder([10_000] * split), layered)
            bits = sum(len(one.indices) for one in codes) * math.log2(made.candidates)
            assert 8 * len(data) - bits < 8 * len(blocks)

    def test_indices_take_their_logarithm(self) -> None:
        for candidates in (2, 3, 36, 4102, 1 << 16):
            value = [[code(3, candidates, 20_000)]]
            bits = 20_000 * math.log2(candidates)
            assert 8 * len(to_bytes(coder([1]), value)) <= 1.0005 * bits + 100


class TestUniform:
    """Symbols that are equally likely, of the range coder."""

    @given(st.integers(2, 1 << 16), st.integers(0, 300), st.integers(0, 99))
    def test_round_trip(self, levels: int, count: int, seed: int) -> None:
        symbols = np.random.default_rng(seed).integers(0, levels, count)
        uniform = Coder(
            lambda encoder, value: encoder.put_uniform(value, levels),
            lambda decoder: decoder.take_uniform(count, levels),
        )
        data = to_bytes(uniform, symbols)
        assert np.array_equal(from_bytes(uniform, data), symbols)
        assert 8 * len(data) <= 1.0005 * count * math.log2(levels) + 16

    def test_refusals(self) -> None:
        for levels in (0, 1, (1 << 16) + 1):
            with pytest.raises(InputError, match="are not 2 to 65536"):
                Encoder().put_uniform(np.zeros(1, np.int64), levels)
        with pytest.raises(InputError, match="Symbols run from 0 to 7, allowed are 0 to 6"):
            Encoder().put_uniform(np.array([0, 7]), 7)
        with pytest.raises(InputError, match="damaged"):
            Decoder(b"abc").take_uniform(1 << 40, 7)  # refused before any room is taken


class TestDamage:
    VALUE = ([code(5, 4102, 13, seed) for seed in range(3)], [code(9, 4102, 2)])
    DIMENSIONS = (500, 40)

    def refused_or_other(self, data: bytes, dimensions: tuple[int, ...] = DIMENSIONS) -> bool:
        """Whether it is refused by name; what is not refused must be the stream of its value."""
        try:
            found = from_bytes(coder(dimensions), data)
        except InputError:
            return True
        assert to_bytes(coder(dimensions), found) == data
        return False

    def test_mangled_streams(self) -> None:
        generator = np.random.default_rng(0)
        data = to_bytes(coder(self.DIMENSIONS), list(self.VALUE))
        refused = 0
        for _ in range(800):
            mangled = bytearray(data)
            for _ in range(generator.integers(1, 4)):
                mangled[generator.integers(len(data))] = generator.integers(256)
            cut = int(generator.integers(len(data))) if generator.random() < 0.3 else len(data)
            refused += self.refused_or_other(bytes(mangled[:cut]))
        assert refused > 300

    def test_noise(self) -> None:
        generator = np.random.default_rng(1)
        for _ in range(500):
            self.refused_or_other(generator.bytes(int(generator.integers(60))), (10**9, 10**9))

    def test_other_numbers_of_latents(self) -> None:
        data = to_bytes(coder(self.DIMENSIONS), list(self.VALUE))
        with pytest.raises(InputError, match="damaged"):
            from_bytes(coder((2, 40)), data)


def test_blocks_of_more_latents_than_a_sender_would_take() -> None:
    """At most 16,384 on average: the time to decode a block grows with them."""
    value = [[code(5, 36, 3)]]
    data = to_bytes(coder([1 << 14]), value)
    with pytest.raises(InputError, match="damaged"):
        from_bytes(coder([(1 << 14) + 1]), data)
    with pytest.raises(InputError, match=r"Layers of \[16385\] latents have no \[1\] blocks"):
        to_bytes(coder([(1 << 14) + 1]), value)


def test_values_that_cannot_be_written() -> None:
    mixed = [[code(0, 36, 2), code(0, 37, 2)]]
    with pytest.raises(InputError, match="the same number of candidates"):
        to_bytes(coder([9]), mixed)
    with pytest.raises(InputError, match=r"Layers of \[1\] latents have no \[2\] blocks"):
        to_bytes(coder([1]), [[code(0, 36, 2), code(0, 36, 2)]])
    with pytest.raises(InputError, match="at most 131071 blocks"):
        to_bytes(coder([1 << 20]), [[code(0, 36, 0)] * (1 << 17)])
