"""The peak signal-to-noise ratio."""

from __future__ import annotations

import math

import pytest

from gencomp.evaluation.psnr import psnr


def test_a_hundredth_of_the_square_of_the_peak_is_20_decibels() -> None:
    assert psnr(0.04) == pytest.approx(20)
    assert psnr(0.01, peak_to_peak=1.0) == pytest.approx(20)


def test_no_error_is_infinite_and_an_unknown_one_unknown() -> None:
    assert psnr(0.0) == math.inf
    assert math.isnan(psnr(math.nan))
