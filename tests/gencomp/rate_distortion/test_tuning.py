"""The frozen sampler: what it refuses, its hash, its file."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gencomp.errors import InputError
from gencomp.rate_distortion.priors import Gaussian
from gencomp.rate_distortion.tuning import Tuning

METRIC = np.stack([np.eye(3), np.diag([1.0, 2, 3]) + 0.5])


@pytest.fixture
def tuning() -> Tuning:
    pilot = np.linspace(0, 8, 5)
    return Tuning(
        betas=np.array([0.0, 1, 4]),
        step_sizes=np.array([0.3, 0.3, 0.1]),
        leapfrog=5,
        latent_dim=3,
        prior=Gaussian(3).identity,
        seed=6,
        low_precision_until=2.0,
        metric_betas=np.array([0.5, 2]),
        metric=METRIC,
        pilot_betas=pilot,
        pilot_mean_d=10 - pilot,
        pilot_sd_d=0 * pilot + 0.5,
        pilot_acceptance=0 * pilot + 0.65,
    )


def test_save_and_load(tuning, tmp_path):
    path = tmp_path / "tuning.npz"
    tuning.save(path)
    loaded = Tuning.load(path)
    assert loaded.hash == tuning.hash
    for field in dataclasses.fields(Tuning):
        before, after = getattr(tuning, field.name), getattr(loaded, field.name)
        assert type(before) is type(after)
        np.testing.assert_array_equal(before, after)
    assert [p.name for p in tmp_path.iterdir()] == ["tuning.npz"]


def test_load_refuses(tuning, tmp_path):
    path = tmp_path / "tuning.npz"
    with pytest.raises(InputError, match="run the tuning round first"):
        Tuning.load(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(InputError, match="not a tuning file"):
        Tuning.load(path)
    np.savez(path, betas=np.zeros(3))
    with pytest.raises(InputError, match="not a tuning file"):
        Tuning.load(path)
    tuning.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a tuning file"):
        Tuning.load(path)
    path.write_bytes(whole)
    with np.load(path) as file:
        stored = dict(file)
    stored["metric"] = 2 * stored["metric"]
    np.savez(path, **stored)
    with pytest.raises(InputError, match="does not hold what was saved"):
        Tuning.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"betas": np.array([0.0, 1, 5])},
        {"step_sizes": np.array([0.3, 0.3, 0.11])},
        {"leapfrog": 6},
        {"prior": Gaussian(3, 2.0).identity},
        {"seed": 5},
        {"low_precision_until": 1.0},
        {"metric_betas": np.array([0.5, 2.1])},
        {"metric": METRIC + 0.1},
        {"metric": METRIC.diagonal(axis1=1, axis2=2)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_hash_covers_all_that_is_measured_with(tuning, change):
    assert dataclasses.replace(tuning, **change).hash != tuning.hash


def test_hash_leaves_out_what_the_pilot_saw(tuning):
    assert dataclasses.replace(tuning, pilot_acceptance=np.ones(5)).hash == tuning.hash


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"step_sizes": np.array([0.3, 0.0, 0.1])}, "positive step size"),
        ({"step_sizes": np.array([0.3, 0.1])}, "positive step size"),
        ({"leapfrog": 0}, "must be positive"),
        ({"low_precision_until": -1.0}, "must not be negative"),
        ({"low_precision_until": float("nan")}, "must not be negative"),
        ({"metric": METRIC[:, :2]}, "does not fit"),
        ({"metric_betas": np.array([2, 0.5])}, "increasing, positive"),
        ({"metric_betas": np.array([0.0, 0.5])}, "increasing, positive"),
        ({"metric": -METRIC}, "positive definite"),
    ],
)
def test_refusals(tuning, change, words):
    with pytest.raises(InputError, match=words):
        dataclasses.replace(tuning, **change)


def test_expected_gap(tuning):
    # Var = 0.25 everywhere, and steps of 1 and 3.
    assert tuning.expected_gap == pytest.approx(0.5 * 0.25 * (1**2 + 3**2))
    without = dataclasses.replace(tuning, pilot_betas=np.zeros(0), pilot_sd_d=np.zeros(0))
    assert np.isnan(without.expected_gap)


def test_factor_interpolates_the_metric(tuning):
    """It is linear in log β between its knots, constant outside; betas 0, 1, 4, knots 0.5, 2."""
    for temperature, expected in ((0, METRIC[0]), (1, METRIC.mean(0)), (2, METRIC[1])):
        factor = tuning.factor(temperature)
        np.testing.assert_allclose(factor @ factor.T, expected, rtol=1e-12)
        assert (np.triu(factor, 1) == 0).all()
    diagonal = dataclasses.replace(tuning, metric=METRIC.diagonal(axis1=1, axis2=2))
    np.testing.assert_allclose(diagonal.factor(2) ** 2, METRIC[1].diagonal())
    plain = dataclasses.replace(tuning, metric_betas=np.zeros(0), metric=np.zeros(0))
    assert plain.factor(1) is None
