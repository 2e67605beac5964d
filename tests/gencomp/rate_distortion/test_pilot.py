"""The tuning round: what it measures and freezes, and that it can be stopped anywhere."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gencomp.errors import InputError
from gencomp.rate_distortion import ais, pilot, preconditioning, schedules
from gencomp.rate_distortion.distortion import SquaredError
from gencomp.rate_distortion.pilot import Pilot, PilotRun, PilotState
from gencomp.rate_distortion.priors import Gaussian

PRIOR = Gaussian(10)


def walk(run: PilotRun, state: PilotState) -> list[PilotState]:
    """All states from a given one to the last."""
    states = [state]
    while not pilot.done(run, states[-1]):
        states.append(pilot.advance(run, states[-1]))
    return states


def surrogate_run(surrogate, **options) -> PilotRun:
    """10 latents, 16 images and chains, squared error to β = 100."""
    settings = {"temperatures": 500, "chains": 16, "leapfrog": 5, "seed": 6, **options}
    return PilotRun(surrogate(10, 16).reduced(), PRIOR, 100.0, **settings)


def find(run: PilotRun) -> Pilot:
    return pilot.finish(run, walk(run, pilot.start(run))[-1])


@pytest.fixture(scope="module")
def found(surrogate) -> Pilot:
    return find(surrogate_run(surrogate))


@pytest.fixture(scope="module")
def found_plain(surrogate) -> Pilot:
    return find(surrogate_run(surrogate, preconditioner="none", schedule="sigmoid"))


@pytest.mark.parametrize("name", ["found", "found_plain"])
def test_pilot_sees_the_spread_of_d(name, request, surrogate):
    seen = request.getfixturevalue(name)
    exact = surrogate(10, 16).exact(seen.betas)
    sd = exact.variance_IT.mean(0).sqrt().numpy()
    length = schedules.thermodynamic_length(seen.betas, sd)
    assert length == pytest.approx(14.9106, rel=3e-3)  # tabulated for this problem
    assert schedules.thermodynamic_length(seen.betas, seen.sd_d) == pytest.approx(length, rel=0.1)
    assert 0.8 < np.median(seen.sd_d / sd) < 1.25
    late = seen.betas > 0.1
    expected = exact.distortion_IT.mean(0).numpy()[late]
    np.testing.assert_allclose(seen.mean_d[late], expected, rtol=0.02)


def test_chains_never_stand_still(found, found_plain):
    for pilot_ in (found, found_plain):
        windows = [window.mean() for window in np.array_split(pilot_.acceptance[1:], 20)]
        assert min(windows) > 0.4


def test_step_size_follows_the_posterior(found_plain):
    """The narrowest direction shrinks like 1/√β where there is no metric."""
    late = found_plain.betas > 10
    steps = np.log(found_plain.step_sizes[late])
    slope = np.polyfit(np.log(found_plain.betas[late]), steps, 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.1)


def test_metric_is_the_posterior_covariance(found, surrogate):
    """All variances of z in the metric's coordinates are about 1 at every knot."""
    problem = surrogate(10, 16)
    for beta, metric in zip(found.metric_betas, found.metric, strict=True):
        root = np.linalg.cholesky(metric)
        covariance = problem.posterior(float(beta))[1].numpy()
        white = np.linalg.solve(root, np.linalg.solve(root, covariance).T)
        variances = np.linalg.eigvalsh(white)
        assert 0.4 < variances.min() and variances.max() < 2.5
    # with it one step size fits all β
    assert found.step_sizes[found.betas > 1].std() < 0.1 * found.step_sizes.mean()


def test_diagonal_metric(surrogate):
    settings = {"preconditioner": "diagonal", "temperatures": 200, "pilot_temperatures": 200}
    tuning = pilot.freeze(find(surrogate_run(surrogate, **settings)))
    beta = float(tuning.betas[160])
    variances = tuning.factor(160) ** 2
    exact = surrogate(10, 16).posterior(beta)[1].diagonal().numpy()
    np.testing.assert_allclose(variances, exact, rtol=0.3)


def test_metric_of_chains_that_are_weighted():
    """Importance weights and several images: the pooled covariance about each image's mean.

    Three times, the older observations fading; 3 variances and covariances of 8,000 chains at 5 %.
    """
    generator = torch.Generator().manual_seed(1)
    root = torch.tensor([[1.0, 0], [0.8, 0.5]], dtype=torch.float64)
    means = torch.tensor([[0.0, 0], [30, -50]], dtype=torch.float64)[:, None]
    normals = torch.randn(2, 4_000, 2, generator=generator, dtype=torch.float64)
    # drawn twice as wide, weighted back
    log_weight = -0.5 * (1 - 0.25) * (2 * normals).square().sum(-1)
    z = means + 2 * normals @ root.T
    for kind in ("dense", "diagonal"):
        scatter = preconditioning.begin(kind, 5 + normals @ root.T)
        for _ in range(2):
            scatter = preconditioning.observe(scatter, z, log_weight, np.log(3.0), 0.9)
        expected = root @ root.T
        expected = expected if kind == "dense" else expected.diagonal()
        got = preconditioning.covariance(scatter)
        torch.testing.assert_close(got, expected, rtol=0.05, atol=0.05)


def test_few_chains_still_give_a_metric():
    """Fewer degrees of freedom than dimensions."""
    z = torch.randn(1, 4, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scatter = preconditioning.begin("dense", z)
    eigenvalues = torch.linalg.eigvalsh(preconditioning.covariance(scatter))
    assert eigenvalues.min() > 0.01 and eigenvalues.max() < 10


@pytest.mark.parametrize("pilot_schedule", ["sigmoid", "cess"])
def test_stopped_anywhere_it_goes_on_exactly(surrogate, pilot_schedule):
    problem = surrogate(4, 3)
    weight, bias = problem.weight_NK.float(), problem.bias_N.float()
    distortion = SquaredError(lambda z: z @ weight.T + bias, problem.x_IN.float())
    settings = {"chains": 6, "leapfrog": 2, "seed": 6, "pilot_temperatures": 30}
    run = PilotRun(*(distortion, Gaussian(4), 5.0, 40), pilot_schedule=pilot_schedule, **settings)
    straight = walk(run, pilot.start(run))
    frozen = pilot.freeze(pilot.finish(run, straight[-1]))
    first = len(straight[-1].explored) - 1
    assert len(straight) == 1 + first + 29 and first <= 29
    steps = [pilot.progress(run, state) for state in straight]
    assert [done for done, _ in steps] == list(range(len(straight)))
    assert steps[0][1] == 58 and steps[-1] == (len(straight) - 1, len(straight) - 1)
    for stop in (0, 1, 7, first, first + 1, first + 15, len(straight) - 1):
        saved = {k: v.clone() for k, v in pilot.to_tensors(run, straight[stop]).items()}
        last = walk(run, pilot.from_tensors(run, saved))[-1]
        assert pilot.freeze(pilot.finish(run, last)).hash == frozen.hash
    with pytest.raises(InputError, match="already done"):
        pilot.advance(run, straight[-1])
    for change in ({"seed": 5}, {"preconditioner": "diagonal"}, {"low_precision_until": 1.0}):
        with pytest.raises(InputError, match="another pilot"):
            pilot.from_tensors(dataclasses.replace(run, **change), saved)


def test_tuning_is_reproducible_and_frozen(surrogate):
    settings = {"beta_max": 10, "temperatures": 50, "chains": 8, "leapfrog": 3}
    distortion = surrogate(4, 4).reduced()

    def tune(**options):
        options = {"seed": 6, "pilot_temperatures": 60, **settings, **options}
        return pilot.tune(distortion, Gaussian(4), **options)

    first = tune()
    assert first.hash == tune().hash != tune(seed=5).hash
    assert first.temperatures == 50 and first.betas[0] == 0 and first.betas[-1] == 10
    assert 0 < first.expected_gap < 5
    sigmoid = tune(schedule="sigmoid", pilot_schedule="cess", low_precision_until=3.0)
    np.testing.assert_array_equal(sigmoid.betas, schedules.sigmoid(10, 50))
    assert sigmoid.low_precision_until == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.seed = 1
    with pytest.raises(InputError, match="tuning round's seed"):
        ais.Walk(distortion, Gaussian(4), first, 6, range(4))


def test_bad_settings(surrogate, found):
    run = surrogate_run(surrogate)
    for change, words in (
        ({"chains": 1}, "at least 4 chains"),
        ({"image_ids": [1, 2]}, "2 image ids for 16 images"),
        ({"temperatures": 1}, "at least 2 temperatures"),
        ({"beta_max": -1.0}, "positive, finite"),
        ({"schedule": "linear"}, "schedule is 'linear'; it can be geodesic, sigmoid"),
        ({"preconditioner": "full"}, "it can be none, diagonal, dense"),
    ):
        with pytest.raises(InputError, match=words):
            dataclasses.replace(run, **change)
    with pytest.raises(InputError, match="the pilot went to beta"):
        pilot.freeze(found, schedules.sigmoid(200, 20))


@pytest.mark.parametrize("name", ["found", pytest.param("found_plain", marks=pytest.mark.slow)])
def test_no_stall(name, request, surrogate):
    """More temperatures never make it worse, and the chains never freeze (sigmoid schedule).

    A rule that follows the acceptance since the start fails this by tens of nats.
    """
    problem = surrogate(10, 16)
    exact = problem.exact([100.0]).log_z_IT[:, 0]
    gaps = []
    for temperatures in (100, 500, 2_000):
        tuning = pilot.freeze(request.getfixturevalue(name), schedules.sigmoid(100, temperatures))
        run = ais.Walk(problem.reduced(), PRIOR, tuning, 7, range(16), resample_below=0)
        state, acceptance = ais.start(run, 16), []
        while not ais.done(run, state):
            state, row = ais.advance(run, state)
            acceptance.append(row.acceptance_I.mean().item())
        gaps.append((exact - row.log_z_I).mean().item())
        if temperatures >= 500:
            assert min(window.mean() for window in np.array_split(acceptance, 20)) > 0.3
    assert gaps[1] < gaps[0] + 0.5 and gaps[2] < gaps[1] + 0.5
