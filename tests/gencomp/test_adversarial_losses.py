"""Adversarial losses at constant scores, and the differences of features."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gencomp.adversarial_losses import (
    GanLoss,
    discriminator_losses,
    feature_differences,
    generator_losses,
)
from gencomp.losses import real_penalties

SCALES = 3


def scores(value: float) -> Tensor:
    return torch.full((2, 1, 3, 4), value)


def both(kind: GanLoss, real: float, fake: float) -> tuple[float, float]:
    """The losses of D and G, summed over three scales."""
    d = discriminator_losses(kind, scores(real), scores(fake))
    g = generator_losses(kind, scores(fake))
    assert d.shape == g.shape == (2,)
    return SCALES * float(d.mean()), SCALES * float(g.mean())


@pytest.mark.parametrize(
    ("real", "fake", "expected"), [(0, 0, (3, 3)), (0.5, 0.5, (1.5, 0.75)), (1, 0, (0, 3))]
)
def test_least_squares(real: float, fake: float, expected: tuple[float, float]) -> None:
    assert both("lsgan", real, fake) == pytest.approx(expected)


def test_the_other_kinds() -> None:
    assert both("vanilla", 0, 0) == pytest.approx((6 * math.log(2), 3 * math.log(2)))
    assert both("hinge", 0, 0) == (6, 0) and both("hinge", 2, -2) == (0, 6)
    assert both("wgan_gp", 3, 1) == (-6, -3)


@pytest.mark.parametrize("kind", ["lsgan", "vanilla", "hinge", "wgan_gp"])
def test_a_generator_s_step_raises_the_score(kind: GanLoss) -> None:
    fake = scores(-0.5).requires_grad_()
    generator_losses(kind, fake).sum().backward()
    assert fake.grad is not None and bool((fake.grad < 0).all())


def test_half_precision_is_summed_in_float32() -> None:
    assert generator_losses("lsgan", scores(0).bfloat16()).dtype == torch.float32


class TestFeatures:
    def pairs(self, difference: float) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """Twelve maps of several sizes that differ by a constant."""
        real = [[torch.randn(2, 4, 5 + k, 3 + i) for i in range(4)] for k in range(SCALES)]
        return real, [[one + difference for one in scale] for scale in real]

    def test_equal_ones_differ_by_nothing(self) -> None:
        assert feature_differences(*self.pairs(0)).tolist() == [0, 0]

    def test_twelve_differences_of_1(self) -> None:
        assert feature_differences(*self.pairs(1)).tolist() == pytest.approx([12, 12])
        assert feature_differences(*self.pairs(1), mean_of_scales=True).tolist() == pytest.approx(
            [4, 4]
        )

    def test_real_features_get_no_gradient(self) -> None:
        real, fake = self.pairs(1)
        for scale in (*real, *fake):
            for one in scale:
                one.requires_grad_()
        feature_differences(real, [[one * 1 for one in scale] for scale in fake]).sum().backward()
        assert all(one.grad is None for scale in real for one in scale)


def test_the_penalty_of_a_linear_critic_is_its_squared_norm() -> None:
    critic = nn.Linear(12, 1)
    found = real_penalties(lambda x: critic(x.flatten(1))[:, 0], torch.randn(3, 3, 2, 2))
    expected = critic.weight.square().sum()
    torch.testing.assert_close(found, expected.expand(3))
    found.sum().backward()
    torch.testing.assert_close(critic.weight.grad, 6 * critic.weight.detach())
