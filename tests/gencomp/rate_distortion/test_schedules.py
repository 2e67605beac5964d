"""Schedules against tabulated values, and the geodesic against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gencomp.errors import InputError
from gencomp.rate_distortion import schedules


@pytest.mark.parametrize(
    ("radius", "expected"),
    [
        (4, [0, 0.104993585404, 0.5, 0.895006414596, 1]),
        (10, [0, 0.006648056671, 0.5, 0.993351943329, 1]),
        (
            10,
            [
                *(0, 2.899785906e-4, 2.427445690e-3, 1.794244119e-2, 0.1191683441, 0.5),
                *(0.8808316559, 0.9820575588, 0.9975725543, 0.9997100214, 1),
            ],
        ),
    ],
)
def test_sigmoid_values(radius, expected):
    got = schedules.sigmoid(1.0, len(expected), radius)
    assert got.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_sigmoid_of_the_published_runs():
    betas = schedules.sigmoid(36_000, 60_000)
    assert len(betas) - 1 == 59_999 and (np.diff(betas) > 0).all()
    assert betas[1] == pytest.approx(5.449e-4, rel=1e-3)
    # the published cut into segments, one reported point at each segment's end
    starts = np.linspace(0, 60_000 - 30, 2_000).astype(int)
    ends = np.append(starts[1:], 59_999)
    assert len(np.unique(ends)) == 2_000
    assert betas[ends[48]] == pytest.approx(1.03345, rel=1e-5)
    assert betas[ends[1990]] == pytest.approx(35_999.8, abs=0.05)


def test_geodesic_has_steps_of_equal_length():
    pilot_betas = schedules.sigmoid(1000, 2001)
    sd = 3 / (1 + pilot_betas)
    betas = schedules.geodesic(pilot_betas, sd, 101)
    length = 3 * np.log1p(betas)  # ∫ sd dβ
    assert np.diff(length) == pytest.approx(np.full(100, 3 * np.log(1001) / 100), rel=2e-3)
    assert betas[0] == 0 and betas[-1] == 1000
    assert schedules.thermodynamic_length(pilot_betas, sd) == pytest.approx(3 * np.log(1001), 1e-3)


def test_geodesic_passes_flat_stretches():
    betas = schedules.geodesic(np.array([0.0, 1, 2, 3]), np.array([1.0, 0, 0, 1]), 50)
    assert (np.diff(betas) > 0).all()


def test_geodesic_refuses_a_decoder_that_ignores_its_latent():
    with pytest.raises(InputError, match="does the decoder use its latent"):
        schedules.geodesic(np.array([0.0, 1]), np.zeros(2), 10)


@pytest.mark.parametrize("beta_max", [0.0, -1.0, np.inf, np.nan])
def test_sigmoid_refuses(beta_max):
    with pytest.raises(InputError, match="positive, finite"):
        schedules.sigmoid(beta_max, 10)


@pytest.mark.parametrize("betas", [[0, 1, 1], [0, 2, 1], [1, 2], [0], [0, np.nan]])
def test_check_refuses(betas):
    with pytest.raises(InputError):
        schedules.check(np.array(betas, dtype=float))


def test_report_points():
    assert schedules.report_points(2001, 4) == [500, 1000, 1500, 2000]
    assert schedules.report_points(4, 40) == [1, 2, 3]
    points = schedules.report_points(1234, 40)
    assert len(points) == 40 and points[-1] == 1233


def test_next_by_cess_keeps_the_conditional_effective_sample_size():
    """Chains of d ~ N(m, s²) with equal weights: CESS/M = exp(-(s·step)²) of many chains."""
    generator = torch.Generator().manual_seed(1)
    for sd, offset in ((0.01, 1e6), (50.0, 300.0)):
        d = offset + sd * torch.randn(4, 20_000, generator=generator, dtype=torch.float64)
        after = schedules.next_by_cess(d, torch.zeros_like(d), 0.0, 1e4, 0.99, 1000)
        assert after == pytest.approx(np.sqrt(-np.log(0.99)) / sd, rel=0.02)
        # weights that say the same as another β
        log_weight = -(after / 10) * d
        again = schedules.next_by_cess(d, log_weight, after / 10, 1e4, 0.99, 1000)
        assert again - after / 10 == pytest.approx(after, rel=0.02)


def test_next_by_cess_always_arrives():
    d = torch.tensor([[0.0, 1e9]]).double()  # allows hardly any step
    beta, steps = 0.0, 0
    while beta < 10:
        beta = schedules.next_by_cess(d, torch.zeros_like(d), beta, 10.0, 0.99, 9 - steps)
        steps += 1
    assert beta == 10 and steps == 10
    assert schedules.next_by_cess(0 * d, 0 * d, 0.0, 10.0, 0.99, 9) == 10
