"""Blocks and layers: every latent once, even shares, and values that reach the posterior."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gencomp.coding.coders import from_bytes, to_bytes
from gencomp.coding.latent_model import Gaussian, rounded
from gencomp.coding.relative_entropy import (
    EFFORTS,
    Key,
    auxiliary,
    blocks,
    coder,
    decode_layer,
    encode_layer,
)
from gencomp.coding.relative_entropy.layers import standardised
from gencomp.errors import InputError


@given(
    st.lists(st.one_of(st.just(0.0), st.floats(0, 5), st.floats(0, 1e300)), max_size=200),
    st.integers(0, 200),
    st.integers(0, 99),
)
@settings(deadline=None)
def test_every_latent_is_in_one_block(expected: list[float], count: int, seed: int) -> None:
    count = min(count, len(expected))
    places = blocks.split(np.array(expected, np.float64), count, Key(seed))
    assert len(places) == count
    assert all(len(place) for place in places)
    if count:
        assert np.array_equal(np.sort(np.concatenate(places)), np.arange(len(expected)))


def test_shares_are_even() -> None:
    generator = np.random.default_rng(0)
    expected_D = generator.gamma(0.3, size=20_000)
    for count in (1, 2, 7, 100):
        places = blocks.split(expected_D, count, Key(5))
        shares = [expected_D[place].sum() for place in places]
        assert max(shares) - min(shares) <= 2 * expected_D.max() + 1


def test_latents_without_expectation_are_spread_too() -> None:
    places = blocks.split(np.zeros(1000), 10, Key())
    assert [len(place) for place in places] == [100] * 10
    mixed = np.where(np.arange(1000) < 500, 0.2, 0.0)
    for place in blocks.split(mixed, 10, Key()):
        assert 30 <= (place < 500).sum() <= 70


def test_the_order_is_that_of_the_key() -> None:
    expected_D = np.ones(1000)
    first = np.concatenate(blocks.split(expected_D, 3, Key(1, 2, 3)))
    assert np.array_equal(first, np.concatenate(blocks.split(expected_D, 5, Key(1, 2, 3))))
    assert first[:4].tolist() == [729, 711, 103, 537]  # known for ever
    for key in (Key(2, 2, 3), Key(1, 3, 3), Key(1, 2, 4)):
        assert (np.concatenate(blocks.split(expected_D, 3, key)) == first).mean() < 0.02


def test_number_of_blocks() -> None:
    assert [blocks.count(nats, 1000) for nats in (0, 0.1, 99, 160, 1000)] == [0, 1, 1, 2, 10]
    assert blocks.count(1e9, 7) == 7
    assert blocks.count(5, 1_000_000) == 62  # memory is bounded
    assert blocks.count(0, 1_000_000) == 0


@pytest.mark.parametrize(
    ("expected", "count"), [([1.0, -1.0], 1), ([np.nan], 1), ([1.0], 2), ([1.0], -1)]
)
def test_refusals(expected: list[float], count: int) -> None:
    with pytest.raises(InputError, match=r"expected relative entropy|has 0 to 1 blocks"):
        blocks.split(np.array(expected), count, Key())


def layer(dimensions: int, nats: float, seed: int) -> tuple[Gaussian, Gaussian, np.ndarray]:
    """A posterior, a prior, and the relative entropy that a model would expect."""
    generator = np.random.default_rng(seed)
    expected_D = generator.gamma(0.5, size=dimensions)
    expected_D *= nats / max(expected_D.sum(), 1e-9)
    scale_D = np.exp(-expected_D * generator.uniform(0.2, 1.8, dimensions))
    mean_D = generator.standard_normal(dimensions) * np.sqrt(1 - scale_D**2)
    prior = rounded(
        generator.standard_normal(dimensions), np.exp(generator.normal(0, 0.5, dimensions))
    )
    posterior = rounded(prior.mean_D + prior.scale_D * mean_D, prior.scale_D * scale_D)
    return posterior, prior, expected_D


class TestLayer:
    @pytest.mark.parametrize(("dimensions", "nats"), [(3000, 900.0), (40, 5.0), (1, 0.3), (0, 0.0)])
    def test_it_reaches_the_posterior(self, dimensions: int, nats: float) -> None:
        posterior, prior, expected_D = layer(dimensions, nats, 0)
        key, made = Key(1, 2, 3), EFFORTS["fast"]
        codes = encode_layer(posterior, prior, expected_D, key, made)
        data = to_bytes(coder([dimensions]), [codes])
        (again,) = from_bytes(coder([dimensions]), data)
        z_D = decode_layer(again, prior, expected_D, key)
        assert np.array_equal(z_D, decode_layer(codes, prior, expected_D, key))
        if nats >= 900:
            residual_D = (z_D - posterior.mean_D) / posterior.scale_D
            assert float((residual_D**2).mean()) == pytest.approx(1, abs=0.1)
            sizes = [len(code.indices) * made.omega for code in codes]
            assert all(60 < size < 150 for size in sizes)

    def test_an_image_with_more_than_expected_has_more_blocks(self) -> None:
        posterior, prior, expected_D = layer(3000, 900, 0)
        nats = auxiliary.kl(*standardised(posterior, prior))
        codes = encode_layer(posterior, prior, expected_D / 5, Key(), EFFORTS["fast"])
        assert len(codes) == round(nats / 100)

    def test_without_blocks_it_is_the_prior_s_mean(self) -> None:
        _, prior, expected_D = layer(50, 5, 0)
        assert encode_layer(prior, prior, expected_D, Key(), EFFORTS["fast"]) == []
        assert np.array_equal(decode_layer([], prior, expected_D, Key()), prior.mean_D)
