"""The discretised logistic distribution: it sums to 1, and its values are the published ones."""

from __future__ import annotations

import math

import pytest
import torch

from gencomp.networks import logistic


@pytest.mark.parametrize("mean", [-0.498, 0.0, 0.49])
@pytest.mark.parametrize("scale", [1e-3, 0.02, 1.0])
def test_the_levels_sum_to_1(mean: float, scale: float) -> None:
    """Their sum would be 0.622 without open edges, for a mean of 0.49 and a scale of 0.02."""
    levels = torch.arange(256.0)
    log_scale = torch.tensor(math.log(scale))
    log_p = logistic.log_probabilities(levels, torch.tensor(mean), log_scale)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_values_inside() -> None:
    """Level 100 is far in the tail, where a difference of sigmoids in float32 has lost digits."""
    log_p = logistic.log_probabilities(
        torch.tensor([128.0, 100.0]), torch.tensor(0.0), torch.tensor(math.log(0.02))
    )
    assert log_p.tolist() == pytest.approx([-3.02262, -7.01198], abs=2e-5)


def test_far_tails_are_finite_with_gradients() -> None:
    mean = torch.tensor([0.49, -0.49], requires_grad=True)
    log_scale = torch.tensor(math.log(1e-3), requires_grad=True)
    logistic.log_probabilities(torch.tensor([1.0, 254.0]), mean, log_scale).sum().backward()
    assert mean.grad is not None and log_scale.grad is not None
    assert torch.isfinite(mean.grad).all() and (mean.grad * torch.tensor([-1, 1]) > 0).all()
    assert torch.isfinite(log_scale.grad) and log_scale.grad > 0


def test_gradients() -> None:
    levels = torch.tensor([0.0, 1, 77, 254, 255], dtype=torch.float64)
    mean = torch.tensor([-0.49, 0.1, -0.3, 0.4, 0.48]).double().requires_grad_()
    log_scale = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda m, s: logistic.log_probabilities(levels, m, s), (mean, log_scale)
    )


def test_an_image_is_the_sum_of_its_values() -> None:
    torch.manual_seed(0)
    pixels = logistic.LogisticPixels(0.3)
    levels_BCHW = torch.randint(0, 256, (2, 3, 4, 5)).float()
    mean_BCHW = torch.rand(2, 3, 4, 5) - 0.5
    each = logistic.log_probabilities(levels_BCHW, mean_BCHW, pixels.log_scale)
    torch.testing.assert_close(pixels(levels_BCHW, mean_BCHW), each.sum((1, 2, 3)))
    assert pixels.log_scale.item() == pytest.approx(math.log(0.3))


def test_bytes_and_levels() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    levels = logistic.levels_of(images)
    assert torch.equal(logistic.bytes_of(logistic.centres_of(levels)), images)
    dithered = (images.double() + torch.rand(1, 1, 16, 16).double()) / 256
    assert torch.equal(logistic.levels_of(dithered), levels.double())
    assert logistic.centres_of(levels).abs().max().item() == logistic.EDGE
