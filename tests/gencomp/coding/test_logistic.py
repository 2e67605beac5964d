"""The discretised logistic: exact round trips, whole probability, near the ideal length."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gencomp.coding import logistic
from gencomp.coding.ans import Stack
from gencomp.coding.coders import from_bytes, to_bytes
from gencomp.coding.latent_model import Logistic
from gencomp.coding.tables import PRECISION, Integers
from gencomp.errors import InputError

ALL = np.arange(256)


def drawn(likelihood: Logistic, seed: int) -> Integers:
    unit_N = np.random.default_rng(seed).uniform(1e-12, 1 - 1e-12, len(likelihood.mean_N))
    x_N = likelihood.mean_N + likelihood.scale * np.log(unit_N / (1 - unit_N))
    return np.clip(np.floor(256 * (x_N + 0.5)), 0, 255).astype(np.int64)


def logs(mean: float, scale: float) -> list[float]:
    """The logarithm of the probability of each level."""
    one = Logistic(np.array([mean]), scale)
    return [logistic.log_likelihood(one, np.array([value])) for value in ALL]


def likelihood(count: int, scale: float, seed: int = 0) -> Logistic:
    """Smooth means, as those of an image, and some that lie at the ends."""
    generator = np.random.default_rng(seed)
    mean_N = 0.5 * np.sin(np.arange(count) / 50) + generator.normal(0, 0.02, count)
    return Logistic(np.clip(mean_N, -0.5 + 1 / 512, 0.5 - 1 / 512), scale)


@pytest.mark.parametrize("mean", [-0.498, 0.0, 0.49])
@pytest.mark.parametrize("scale", [1e-3, 0.02, 1.0])
def test_levels_share_all_probability(mean: float, scale: float) -> None:
    assert np.exp(logs(mean, scale)).sum() == pytest.approx(1, abs=1e-9)


def test_values() -> None:
    found = logs(0, 0.02)
    assert found[128] == pytest.approx(-3.02262, abs=5e-6)
    assert found[100] == pytest.approx(-7.01198, abs=5e-6)


@pytest.mark.parametrize("scale", [1e-4, 1e-3, 0.02, 1.0])
def test_frequencies_are_the_probabilities(scale: float) -> None:
    """Means that are multiples of the step need no rounding but that of the frequencies."""
    scale = logistic.rounded_scale(scale)
    steps = logistic.steps_of(scale)
    places_R = np.array([-9, 0, 3, 100 * steps + 1, 256 * steps - 2, 300 * steps])
    rows_RL = logistic.frequencies(places_R, steps, scale)
    assert rows_RL.min() >= 1 and (rows_RL.sum(axis=1) == 1 << PRECISION).all()
    for place, row_L in zip(places_R, rows_RL, strict=True):
        exact_L = np.exp(logs(place / steps / 256 - 0.5, scale / 256)) * (1 << PRECISION)
        assert np.abs(row_L - exact_L * (1 - 256 * 2.0**-PRECISION)).max() <= 2.1


@pytest.mark.parametrize("scale", [2e-4, 1e-3, 5e-3, 0.02, 0.1, 1.0])
@pytest.mark.parametrize("count", [0, 1, 30, 3072, 100_000])
def test_length(count: int, scale: float) -> None:
    """It is ideal within 1 % and 16 bytes, for means that are no multiples of any step."""
    model = likelihood(count, scale)
    values_N = drawn(model, seed=1)
    data = to_bytes(logistic.coder(model), values_N)
    assert np.array_equal(from_bytes(logistic.coder(model), data), values_N)
    ideal_bytes = -logistic.log_likelihood(model, values_N) / np.log(2) / 8
    assert len(data) <= 1.01 * ideal_bytes + 16
    assert len(data) >= 0.99 * ideal_bytes - 16 or scale < 1e-3


def test_rounding_costs_little() -> None:
    """The mean of 100,000 values: at most 0.1 % above the ideal length."""
    for scale in (1e-3, 5e-3, 0.02, 0.1):
        model = likelihood(100_000, scale)
        values_N = drawn(model, seed=2)
        ideal_bytes = -logistic.log_likelihood(model, values_N) / np.log(2) / 8
        assert len(to_bytes(logistic.coder(model), values_N)) <= 1.001 * ideal_bytes + 16


@given(
    st.lists(st.tuples(st.floats(-2, 2), st.integers(0, 255)), max_size=60),
    st.floats(1e-6, 1e3),
    st.integers(1, 12),
)
def test_round_trip_of_whatever_values(
    pairs: list[tuple[float, int]], scale: float, repeats: int
) -> None:
    """Those that are next to impossible too, by the range coder and by a stack."""
    mean_N = np.repeat(np.array([mean for mean, _ in pairs]), repeats)
    values_N = np.repeat(np.array([value for _, value in pairs], np.int64), repeats)
    model = Logistic(mean_N, scale)
    coder = logistic.coder(model)
    assert np.array_equal(from_bytes(coder, to_bytes(coder, values_N)), values_N)
    stack = Stack()
    logistic.push(stack, model, values_N)
    reader = Stack.read(stack.data())
    assert np.array_equal(logistic.pop(reader, model), values_N)
    reader.finish()


def test_bad_likelihoods_are_refused() -> None:
    for scale in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="scale"):
            logistic.coder(Logistic(np.zeros(3), scale))
    with pytest.raises(InputError, match="finite"):
        logistic.coder(Logistic(np.array([0, np.nan]), 0.1))
    with pytest.raises(InputError, match="3 values"):
        to_bytes(logistic.coder(Logistic(np.zeros(3), 0.1)), np.zeros(4, np.int64))


def test_every_flipped_bit_changes_the_values_or_is_refused() -> None:
    model = likelihood(50, 0.02)
    values_N = drawn(model, seed=3)
    coder = logistic.coder(model)
    data = to_bytes(coder, values_N)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            assert not np.array_equal(from_bytes(coder, bytes(flipped)), values_N)
        except InputError:
            continue


def test_golden_stream() -> None:
    """Files must be read for ever, so frequencies are the same on every machine."""
    places_R = np.arange(-300, 9000, 7)
    digest = hashlib.sha256()
    for scale in (0.05, 0.256, 5.12, 300.0):
        rounded = logistic.rounded_scale(scale / 256)
        rows_RL = logistic.frequencies(places_R, logistic.steps_of(rounded), rounded)
        digest.update(rows_RL.astype("<i4").tobytes())
    model = Logistic(np.arange(40) % 23 / 64 - 0.2, 0.02)
    digest.update(to_bytes(logistic.coder(model), np.arange(40) * 5 % 256))
    assert digest.hexdigest() == GOLDEN


GOLDEN = "402f9ae8f0f09a136f1d4c5e51b322f15cec76d37a5bbe138d44fce515e6e0c4"
