"""The dither against known answers, and the laws that make it a channel with uniform noise."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from gencomp import quantizer
from gencomp.coding import dither
from gencomp.errors import InputError

SEED = 0x0123456789ABCDEF
# Counter, key and words: the vectors that the generator's authors publish.
KNOWN = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected):
    left, right = words(key)
    found = dither.philox(np.array([words(counter)], dtype=np.uint64), (left, right))
    assert found[0].tolist() == words(expected)


def test_golden_example():
    u = dither.unit_dither(SEED, [0, 1], latents=3)
    expected = [(0.219972741, 0.271677988, -0.419317238), (0.178864741, -0.178740649, -0.104490987)]
    assert u == pytest.approx(np.array(expected), abs=1e-9)
    f = torch.tensor([0.2, -0.9, 0.55], dtype=torch.float64)
    symbols = quantizer.quantize_hard(f + torch.from_numpy(u), quantizer.grid(3))
    assert symbols.tolist() == [[1, 0, 1], [1, 0, 1]]
    y = quantizer.symbols_to_values(symbols, quantizer.grid(3), dtype=torch.float64).numpy() - u
    expected = [
        (-0.219972741, -1.271677988, 0.419317238),
        (-0.178864741, -0.821259351, 0.104490987),
    ]
    assert y == pytest.approx(np.array(expected), abs=1e-9)


def test_a_picture_s_dither_depends_on_nothing_but_its_name():
    whole = dither.unit_dither(SEED, range(64), latents=10, layer=1)
    for size in (1, 7):
        parts = [
            dither.unit_dither(SEED, range(64)[first : first + size], latents=10, layer=1)
            for first in range(0, 64, size)
        ]
        assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(dither.unit_dither(SEED, range(64), latents=6, layer=1), whole[:, :6])
    assert len({*whole.ravel().tolist()}) == whole.size
    for other in (
        dither.unit_dither(SEED + 1, range(64), latents=10, layer=1),
        dither.unit_dither(SEED, range(64, 128), latents=10, layer=1),
        dither.unit_dither(SEED, range(64), latents=10, layer=0),
        dither.unit_dither(SEED, range(2**32, 2**32 + 64), latents=10, layer=1),
    ):
        assert not (other == whole).any()


def test_another_process_sees_the_same():
    code = (
        "from gencomp.coding import dither;"
        f"print(dither.unit_dither({SEED}, range(9), 5).tobytes().hex())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert bytes.fromhex(found) == dither.unit_dither(SEED, range(9), 5).tobytes()


class TestChannel:
    """The error y − f is uniform on a cell and independent of f, for every f in [−1, 1].

    The seed is fixed; with another one, each of the 28 comparisons with a uniform distribution
    would fail with a probability below 1e-4 (Kolmogorov's law at 0.0050·√200,000 = 2.24).
    """

    DRAWS = 200_000

    @pytest.mark.parametrize("levels", [2, 3, 4, 8])
    def test_error_law(self, levels):
        grid, step = quantizer.grid(levels), 2 / (levels - 1)
        u = torch.from_numpy(dither.unit_dither(levels, range(self.DRAWS), 1)[:, 0]) * step
        for f in (-1, -0.9, -0.37, 0, 0.2, 0.61, 1):
            error = (quantizer.quantize(f + u, grid) - u - f).numpy()
            assert np.abs(error).max() <= step / 2 + 1e-6
            assert np.var(error) == pytest.approx(step**2 / 12, rel=0.01)
            assert stats.kstest(error, stats.uniform(-step / 2, step).cdf).statistic < 0.0050

    @pytest.mark.parametrize("levels", [2, 3, 4, 8])
    def test_error_does_not_depend_on_the_value(self, levels):
        grid, step = quantizer.grid(levels), 2 / (levels - 1)
        u = torch.from_numpy(dither.unit_dither(7, range(self.DRAWS), 1)[:, 0]) * step
        f = torch.from_numpy(np.random.default_rng(3).uniform(-1, 1, self.DRAWS))
        error = quantizer.quantize(f + u, grid) - u - f
        for moment in (f, f**2):
            assert abs(np.corrcoef(error, moment)[0, 1]) < 0.01

    @pytest.mark.parametrize("levels", [2, 3, 4, 8])
    def test_the_channel_adds_uniform_noise(self, levels):
        count = 100_000
        grid, step = quantizer.grid(levels), 2 / (levels - 1)
        numbers = np.random.default_rng(5)
        f = torch.from_numpy(np.tanh(numbers.standard_normal(count)))
        u = torch.from_numpy(dither.unit_dither(9, range(count), 1)[:, 0]) * step
        sent = (quantizer.quantize(f + u, grid) - u).numpy()
        noisy = f.numpy() + numbers.uniform(-step / 2, step / 2, count)
        assert stats.ks_2samp(sent, noisy).statistic < 0.0098


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (2**64, 0), (0, -5), (0, 2**64)])
def test_numbers_out_of_range_are_refused(seed, index):
    with pytest.raises(InputError, match="18446744073709551615"):
        dither.unit_dither(seed, [index], 3)
