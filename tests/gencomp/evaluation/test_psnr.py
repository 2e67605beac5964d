"""The peak signal-to-noise ratio."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gencomp.evaluation.psnr import psnr, psnr_ends, psnr_of_each


def test_a_hundredth_of_the_square_of_the_peak_is_20_decibels() -> None:
    assert psnr(0.04) == pytest.approx(20)


def test_the_ends_of_an_interval_change_places() -> None:
    assert psnr_ends((0.04, 0.4)) == pytest.approx((10, 20))
    assert psnr_ends((0.0, 0.4)) == pytest.approx((10, math.inf))
    assert psnr_ends(None) is None


def test_no_error_is_infinite_and_an_unknown_one_unknown() -> None:
    assert psnr(0.0) == math.inf
    assert math.isnan(psnr(math.nan))


def test_each_image_has_its_own_ratio() -> None:
    assert list(psnr_of_each(np.array([0.04, 0.4, 0.0]))) == pytest.approx([20, 10, math.inf])
