"""Universal quantization: errors are exactly uniform, the rate is near the ideal, damage."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from gencomp.coding import universal_quantization as uq
from gencomp.coding.dither import unit_dither
from gencomp.coding.latent_model import Floats, Gaussian, rounded
from gencomp.coding.range_coder import Decoder, Encoder
from gencomp.errors import InputError


def coded(mean_D: Floats, prior: Gaussian, seed: int = 0) -> tuple[bytes, Floats]:
    """The stream of latents and what the receiver gets, after a round trip."""
    dither_D = unit_dither(seed, [0], len(mean_D))[0]
    encoder = Encoder()
    z_D = uq.encode(encoder, mean_D, prior, dither_D)
    data = encoder.data()
    decoder = Decoder(data)
    assert np.array_equal(uq.decode(decoder, prior, dither_D), z_D)
    decoder.finish()
    return data, z_D


def ideal_bits(z_D: Floats, prior: Gaussian) -> float:
    """−log2 of the density of the prior with uniform noise."""
    upper_D = (z_D + 0.5 - prior.mean_D) / prior.scale_D
    lower_D = (z_D - 0.5 - prior.mean_D) / prior.scale_D
    flip_D = lower_D > 0  # in the upper tail both would be next to 1
    masses_D = special.ndtr(np.where(flip_D, -lower_D, upper_D))
    masses_D = masses_D - special.ndtr(np.where(flip_D, -upper_D, lower_D))
    return float(-np.log2(masses_D).sum())


def latents(scales: list[float], count: int, seed: int = 0) -> tuple[Floats, Gaussian]:
    """Means drawn from their priors, whose scales are mixed."""
    generator = np.random.default_rng(seed)
    prior = rounded(generator.normal(0, 5, count), generator.choice(scales, count))
    return generator.normal(prior.mean_D, prior.scale_D), prior


@pytest.mark.parametrize(
    "scales", [[0.05], [0.2], [0.43], [1.0], [5.0], [60.0], [1e4], [0.05, 0.1, 0.2, 0.5, 3.0]]
)
def test_rate(scales: list[float]) -> None:
    """It is ideal within 1 % and a byte."""
    mean_D, prior = latents(scales, 20_000)
    data, z_D = coded(mean_D, prior)
    assert 8 * len(data) <= 1.01 * ideal_bits(z_D, prior) + 8


def test_the_error_is_uniform_and_independent_of_the_mean() -> None:
    """Kolmogorov and Smirnov for 40,000 errors, also of means with one fraction: each of the five
    tests fails for one seed in 10,000."""
    mean_D, prior = latents([0.3, 4.0], 40_000)
    _, z_D = coded(mean_D, prior)
    error_D = z_D - mean_D
    assert np.abs(error_D).max() <= 0.5 + 1e-9
    assert stats.kstest(error_D + 0.5, "uniform").pvalue > 1e-4
    assert stats.pearsonr(error_D, mean_D).pvalue > 1e-4
    for fraction in (0.0, 0.25, 0.5):
        _, z_D = coded(np.floor(mean_D) + fraction, prior, seed=7)
        assert stats.kstest(z_D - np.floor(mean_D) - fraction + 0.5, "uniform").pvalue > 1e-4


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-60, 60), st.floats(1e-4, 1e7))))
def test_round_trip_of_whatever_latents(values: list[tuple[float, float, float]]) -> None:
    """Those that lie far outside of every window too."""
    table = np.array(values, np.float64).reshape(-1, 3)
    _, z_D = coded(table[:, 0], rounded(table[:, 1], table[:, 2]))
    assert np.abs(z_D - table[:, 0]).max(initial=0) <= 0.5 + 1e-6


def test_another_dither_or_prior_gives_other_values() -> None:
    mean_D, prior = latents([1.0], 200)
    data, z_D = coded(mean_D, prior)
    other = Gaussian(prior.mean_D + 2.0**-6, prior.scale_D)
    for dither_D, guess in (
        (unit_dither(1, [0], 200)[0], prior),
        (unit_dither(0, [0], 200)[0], other),
    ):
        try:
            assert not np.array_equal(uq.decode(Decoder(data), guess, dither_D), z_D)
        except InputError:
            continue


def test_bad_numbers_are_refused() -> None:
    good, dither_D = Gaussian(np.zeros(2), np.ones(2)), np.zeros(2)
    for bad in (np.nan, np.inf, 1e10):
        with pytest.raises(InputError, match="mean"):
            uq.encode(Encoder(), np.array([0, bad]), good, dither_D)
        with pytest.raises(InputError, match="mean"):
            uq.decode(Decoder(b""), Gaussian(np.array([0, bad]), np.ones(2)), dither_D)
    for bad in (0.0, -1.0, np.nan, np.inf, 1e9):
        with pytest.raises(InputError, match="scale"):
            uq.decode(Decoder(b""), Gaussian(np.zeros(2), np.array([1, bad])), dither_D)


def test_mangled_streams_are_refused_or_decode_to_finite_values() -> None:
    mean_D, prior = latents([0.1, 1.0, 30.0], 300)
    data, _ = coded(mean_D, prior)
    dither_D = unit_dither(0, [0], 300)[0]
    generator = np.random.default_rng(0)
    for _ in range(500):
        mangled = bytearray(data)
        for place in generator.integers(0, len(data), generator.integers(1, 5)):
            mangled[place] = generator.integers(256)
        try:
            decoder = Decoder(bytes(mangled[: generator.integers(1, len(data) + 1)]))
            assert np.isfinite(uq.decode(decoder, prior, dither_D)).all()
            decoder.finish()
        except InputError:
            continue


def golden() -> tuple[Floats, Gaussian, Floats]:
    places = np.arange(12)
    prior = Gaussian((places - 5) / 8, np.array([0.125, 0.5, 2.0, 40.0] * 3))
    return prior.mean_D + (places % 5 - 2) * prior.scale_D, prior, (places * 7 % 12 - 5.5) / 12


def test_golden_stream() -> None:
    mean_D, prior, dither_D = golden()
    encoder = Encoder()
    uq.encode(encoder, mean_D, prior, dither_D)
    assert encoder.data().hex() == GOLDEN


def test_another_process_reads_it() -> None:
    program = (
        "from tests.gencomp.coding.test_universal_quantization import *\n"
        "mean_D, prior, dither_D = golden()\n"
        f"z_D = uq.decode(Decoder(bytes.fromhex('{GOLDEN}')), prior, dither_D)\n"
        "assert np.abs(z_D - mean_D).max() <= 0.5"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


GOLDEN = "7a436e9a81"
