"""Elementary functions: near the exact values, monotone, and the same bits as ever."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy import special

from gencomp.coding import portable

X = np.concatenate([np.linspace(-40, 40, 80_001), np.random.default_rng(0).normal(0, 3, 20_000)])


def test_exp() -> None:
    assert np.abs(portable.exp(X) / np.exp(X) - 1).max() < 5e-16
    assert (portable.exp(np.array([0.0, -800.0])) == [1, portable.exp(np.array([-700.0]))[0]]).all()


def test_log() -> None:
    x = np.concatenate([2.0 ** np.arange(-60, 60), np.arange(1.0, 70_000), np.abs(X) + 1e-9])
    assert np.abs(portable.log(x) - np.log(x)).max() < 1e-14


def test_sigmoid() -> None:
    assert np.abs(portable.sigmoid(X) - special.expit(X)).max() < 5e-16


def test_normal_cdf() -> None:
    assert np.abs(portable.normal_cdf(X) - special.ndtr(X)).max() < 1e-12
    assert (portable.normal_cdf(np.array([-8.0, 0.0, 8.0])) == [0, 0.5, 1]).all()


def test_normal_quantile() -> None:
    u = np.concatenate([np.arange(1, 1024) / 1024, 0.5 ** np.arange(2.0, 32.0)])
    assert portable.normal_quantile(u) == pytest.approx(special.ndtri(u), rel=2e-7, abs=1e-12)
    assert (portable.normal_quantile(1 - u) == -portable.normal_quantile(u)).all()


def test_golden_bits() -> None:
    """Streams depend on every bit of these values, on every processor."""
    digest = hashlib.sha256()
    for function in (portable.exp, portable.sigmoid, portable.normal_cdf):
        digest.update(function(np.arange(-50_000, 50_000) / 2000).astype("<f8").tobytes())
    digest.update(portable.log(np.arange(1.0, 5000)).astype("<f8").tobytes())
    digest.update(portable.normal_quantile(np.arange(1, 512) / 512).astype("<f8").tobytes())
    assert digest.hexdigest() == GOLDEN


GOLDEN = "aca12385bb9d01d697ab3a89c90dcf05830b078ac89c6e659bb6d83a309e96cb"
