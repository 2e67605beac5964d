"""Squared error, variance over draws and the rate-0 identity, against definitions in floats."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gencomp.evaluation import pixels
from gencomp.evaluation.psnr import psnr


def images(count: int, seed: int = 0, side: int = 8) -> Tensor:
    numbers = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=numbers, dtype=torch.uint8)


def signed(images_BCHW: Tensor) -> Tensor:
    return images_BCHW.double() / 127.5 - 1


def test_squared_error_is_that_of_the_signed_scale() -> None:
    a, b = images(5, 0), images(5, 1)
    expected = (signed(a) - signed(b)).square().mean((1, 2, 3))
    assert torch.allclose(pixels.squared_error(a, b), expected, rtol=1e-13, atol=0)
    assert pixels.squared_error(a, a).tolist() == [0] * 5


def test_black_against_white_is_four_and_zero_decibels() -> None:
    black, white = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.full((1, 3, 4, 4), 255)
    mse = pixels.squared_error(black, white.to(torch.uint8)).item()
    assert mse == 4
    assert psnr(mse) == 0
    assert psnr(0.0439) == pytest.approx(19.60, abs=0.005)  # as published
    assert psnr(0) == math.inf


def test_the_variance_of_draws_is_the_biased_one() -> None:
    draws = [images(4, seed) for seed in range(7)]
    repeats = pixels.Repeats()
    for one in draws:
        repeats.add(one)
    stacked = torch.stack([signed(one) for one in draws])
    expected = stacked.var(0, unbiased=False).mean((1, 2, 3))
    assert torch.allclose(repeats.variance_B(), expected, rtol=1e-12, atol=0)
    assert torch.equal(repeats.total_BCHW, torch.stack(draws).long().sum(0))


def test_equal_draws_have_no_variance_at_all() -> None:
    repeats = pixels.Repeats()
    for _ in range(100):
        repeats.add(images(3))
    assert repeats.variance_B().tolist() == [0, 0, 0]


def test_pixel_sums_merge_exactly() -> None:
    every = images(11)
    whole, merged = pixels.PixelSums.of(every), pixels.PixelSums.of(every[:3])
    merged.merge(pixels.PixelSums.of(every[3:]))
    assert merged.count == 11
    assert torch.equal(whole.total_CHW, merged.total_CHW)
    assert whole.variance() == merged.variance()
    expected = signed(every).var(0, unbiased=False).mean().item()
    assert whole.variance() == pytest.approx(expected, rel=1e-12)


def test_the_zero_rate_identity_is_exact_where_nothing_is_sampled() -> None:
    """Every image meets the same draws: then no covariance is left to chance."""
    originals, draws = images(6, 0), images(9, 1)
    repeats = pixels.Repeats()
    for one in draws:
        repeats.add(one.expand(6, -1, -1, -1))
    error = torch.stack([pixels.squared_error(originals, one[None]) for one in draws]).mean()
    pv = repeats.variance_B().mean().item() * 8 / 9  # given back by the correction of 9/8
    both = pixels.zero_rate(
        error.item(),
        pixels.PixelSums.of(originals),
        repeats.total_BCHW.double().sum(0) / (6 * 9),
        pv,
        draws=9,
    )
    assert both.mse == pytest.approx(both.right_side, rel=1e-12)


def test_the_zero_rate_identity_holds_to_sampling_error() -> None:
    """E MSE(0) = Var(X) + PV(0) + |E X − E G|², with other means and variances on both sides.

    500 images × 4 draws of 192 values each: the standard error of the difference is below 0.0005
    (measured over seeds: 0.0003), so 0.002 fails by chance less than once in 10,000.
    """
    numbers = torch.Generator().manual_seed(5)

    def bytes_of(x: Tensor) -> Tensor:
        return x.round().clamp(0, 255).to(torch.uint8)

    originals = bytes_of(90 + 30 * torch.randn(500, 3, 8, 8, generator=numbers))
    repeats, errors = pixels.Repeats(), []
    for _ in range(4):
        drawn = bytes_of(150 + 20 * torch.randn(500, 3, 8, 8, generator=numbers))
        repeats.add(drawn)
        errors.append(pixels.squared_error(originals, drawn))
    both = pixels.zero_rate(
        torch.stack(errors).mean().item(),
        pixels.PixelSums.of(originals),
        repeats.total_BCHW.double().sum(0) / 2000,
        repeats.variance_B().mean().item(),
        draws=4,
    )
    assert both.mse == pytest.approx(both.right_side, abs=0.002)
    assert both.distance_of_means == pytest.approx((60 / 127.5) ** 2, rel=0.02)
