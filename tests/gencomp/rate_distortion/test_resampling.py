from __future__ import annotations

import math

import pytest
import torch

from gencomp.rate_distortion import resampling


def test_effective_sample_size():
    log_weight = torch.tensor([[0.0, 0, 0, 0], [0, -1e6, -1e6, -1e6], [5e5, 5e5, 0, 0]]).double()
    assert resampling.effective_sample_size(log_weight).tolist() == [4, 1, 2]


def test_copies_are_the_expected_number_rounded():
    generator = torch.Generator().manual_seed(1)
    log_weight = 2 * torch.randn(500, 16, generator=generator, dtype=torch.float64) - 1e6
    uniform = torch.rand(500, generator=generator, dtype=torch.float64)
    ancestors = resampling.systematic_ancestors(log_weight, uniform)
    copies = torch.nn.functional.one_hot(ancestors, 16).sum(1)
    expected = 16 * torch.softmax(log_weight, -1)
    assert ((copies - expected).abs() < 1 + 1e-9).all()


def test_equal_weights_keep_every_chain():
    for uniform in (1e-9, 0.5, 1 - 1e-9):
        ancestors = resampling.systematic_ancestors(
            torch.full((1, 16), -3e5).double(), torch.tensor([uniform]).double()
        )
        assert ancestors.tolist() == [list(range(16))]


def test_log_mean_exp():
    values = torch.tensor([[math.log(1), math.log(3)]]).double() - 1e6
    assert resampling.log_mean_exp(values).item() == pytest.approx(math.log(2) - 1e6, abs=1e-6)
