"""The tuning round: what it measures, what it freezes, how it is stored."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gencomp.errors import InputError
from gencomp.rate_distortion import ais, pilot, schedules
from gencomp.rate_distortion.tuning import Tuning


@pytest.fixture(scope="module")
def explored(surrogate) -> pilot.Pilot:
    betas = schedules.sigmoid(100, 500)
    return pilot.explore(surrogate(10, 16).reduced(), 10, betas, chains=16, leapfrog=5, seed=6)


def test_pilot_sees_the_spread_of_d(explored, surrogate):
    exact = surrogate(10, 16).exact(explored.betas)
    sd = exact.variance_IT.mean(0).sqrt().numpy()
    length = schedules.thermodynamic_length(explored.betas, sd)
    assert length == pytest.approx(14.9106, rel=2e-3)  # tabulated for this problem
    seen = schedules.thermodynamic_length(explored.betas, explored.sd_d)
    assert seen == pytest.approx(length, rel=0.1)
    ratio = explored.sd_d / sd
    assert 0.8 < np.median(ratio) < 1.25
    late = explored.betas > 0.1
    np.testing.assert_allclose(
        explored.mean_d[late], exact.distortion_IT.mean(0).numpy()[late], rtol=0.02
    )


def test_step_size_follows_the_posterior(explored):
    windows = np.nanmean(explored.acceptance[1:].reshape(-1, 499)[:, :475].reshape(19, 25), axis=1)
    assert windows[1:].min() > 0.4
    # the narrowest direction shrinks like 1/sqrt(β)
    late = explored.betas > 10
    slope = np.polyfit(np.log(explored.betas[late]), np.log(explored.step_sizes[late]), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.1)


def test_tuning_is_reproducible_and_frozen(surrogate):
    settings: dict[str, int] = {
        "beta_max": 10,
        "temperatures": 50,
        "chains": 8,
        "leapfrog": 3,
        "pilot_temperatures": 60,
    }
    distortion = surrogate(4, 4).reduced()
    first = pilot.tune(distortion, 4, seed=6, **settings)
    assert first.hash == pilot.tune(distortion, 4, seed=6, **settings).hash
    assert first.hash != pilot.tune(distortion, 4, seed=5, **settings).hash
    assert first.temperatures == 50 and first.betas[0] == 0 and first.betas[-1] == 10
    assert 0 < first.expected_gap < 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.seed = 1
    with pytest.raises(InputError, match="tuning round's seed"):
        ais.Run(distortion, first, 6, range(4))


def test_save_and_load(explored, tmp_path):
    tuning = pilot.freeze(explored, schedules.geodesic(explored.betas, explored.sd_d, 100))
    path = tmp_path / "tuning.npz"
    tuning.save(path)
    loaded = Tuning.load(path)
    assert loaded.hash == tuning.hash and loaded.expected_gap == tuning.expected_gap
    for field in dataclasses.fields(Tuning):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(tuning, field.name))
    assert [p.name for p in tmp_path.iterdir()] == ["tuning.npz"]


def test_load_refuses(explored, tmp_path):
    path = tmp_path / "tuning.npz"
    with pytest.raises(InputError, match="run the tuning round first"):
        Tuning.load(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(InputError, match="not a tuning file"):
        Tuning.load(path)
    np.savez(path, betas=np.zeros(3))
    with pytest.raises(InputError, match="not a tuning file"):
        Tuning.load(path)
    tuning = pilot.freeze(explored, schedules.sigmoid(100, 30))
    tuning.save(path)
    with np.load(path) as file:
        stored = dict(file)
    stored["step_sizes"] = 2 * stored["step_sizes"]
    np.savez(path, **stored)
    with pytest.raises(InputError, match="does not hold what was saved"):
        Tuning.load(path)


def test_bad_settings(surrogate, explored):
    distortion = surrogate(4, 4).reduced()
    betas = schedules.sigmoid(10, 20)
    with pytest.raises(InputError, match="at least 4 chains"):
        pilot.explore(distortion, 4, betas, chains=1, leapfrog=3, seed=6)
    with pytest.raises(InputError, match="2 image ids for 4 images"):
        pilot.explore(distortion, 4, betas, chains=8, leapfrog=3, seed=6, image_ids=[1, 2])
    with pytest.raises(InputError, match="the pilot went to beta"):
        pilot.freeze(explored, schedules.sigmoid(200, 20))


def test_no_stall(explored, surrogate):
    """More temperatures never make it worse, and the chains never freeze (sigmoid schedule).

    A rule that follows the acceptance since the start fails this by tens of nats.
    """
    problem = surrogate(10, 16)
    exact = problem.exact([100.0]).log_z_IT[:, 0]
    gaps = []
    for temperatures in (100, 500, 2_000):
        tuning = pilot.freeze(explored, schedules.sigmoid(100, temperatures))
        run = ais.Run(problem.reduced(), tuning, 7, range(16), resample_below=0)
        state, acceptance = ais.start(run, 16), []
        while not ais.done(run, state):
            state, row = ais.advance(run, state)
            acceptance.append(row.acceptance_I.mean())
        gaps.append((exact - row.log_z_I).mean().item())
        if temperatures >= 500:
            window = temperatures // 20
            means = torch.stack(acceptance)[: 19 * window].view(19, window).mean(-1)
            assert means.min() > 0.3
    assert gaps[1] < gaps[0] + 0.5 and gaps[2] < gaps[1] + 0.5
