"""The annealed estimator: its identities, bounds, layout, precision and continuation."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from gencomp.errors import InputError
from gencomp.rate_distortion import ais, hmc, schedules
from gencomp.rate_distortion.distortion import Distortion, SquaredError
from gencomp.rate_distortion.priors import Gaussian, Prior
from gencomp.rate_distortion.tuning import Tuning

PRIOR = Gaussian(2)


def tuning(betas, step_sizes, leapfrog=5, prior: Prior = PRIOR, **options) -> Tuning:
    betas = np.asarray(betas, dtype=float)
    steps = np.broadcast_to(np.asarray(step_sizes, dtype=float), betas.shape)
    return Tuning(betas, steps, leapfrog, prior.latent_dim, prior.identity, seed=6, **options)


def make_run(distortion: Distortion, frozen: Tuning, ids=None, prior=PRIOR, **options) -> ais.Walk:
    """Seed 7; images 0, 1, ... if not named."""
    ids = range(len(distortion.x_IN)) if ids is None else ids
    return ais.Walk(distortion, prior, frozen, 7, ids, **options)


def toy_steps(betas: np.ndarray) -> np.ndarray:
    """Stable everywhere on the toy and small enough for a high acceptance."""
    return 1.0 / np.sqrt(1 + 2 * betas * 1.63**2)


def measure(run: ais.Walk, chains: int) -> list[ais.Row]:
    state, rows = ais.start(run, chains), []
    while not ais.done(run, state):
        state, row = ais.advance(run, state)
        rows.append(row)
    return rows


def standard_error(values: Tensor) -> float:
    return (values.std() / len(values) ** 0.5).item()


def test_estimate_at_the_start(toy):
    run = make_run(toy.full(), tuning([0, 1], 0.3))
    state = ais.start(run, 8)
    row = ais.estimate(run, state)
    assert row.log_z_I.tolist() == [0, 0] and row.rate_I.tolist() == [0, 0]
    torch.testing.assert_close(row.distortion_I, state.chain.d_IM.mean(-1))
    assert row.ess_I.tolist() == pytest.approx([8, 8])


# radius (None: linear), temperatures, β_max, log Z, E forward, E backward, exponentials too
PERFECT = [
    (None, 11, 10, -11.17214236, -18.87840956, -9.04198515, False),
    (4, 11, 10, -11.17214236, -13.71035529, -9.66441854, False),
    (10, 51, 10, -11.17214236, -11.85912760, -10.59980089, True),
    (10, 101, 100, -67.69806534, -68.27912236, -67.17694890, True),
]


@pytest.mark.parametrize("case", PERFECT, ids=lambda case: f"rad{case[0]}-T{case[1]}-b{case[2]}")
def test_perfect_kernel(toy_x1, case):
    """Exact draws instead of HMC, 10,000 single-chain runs both ways.

    At most 4 means at 4 standard errors: fails with probability 3e-4 per case.
    """
    radius, temperatures, beta_max, log_z, forward, backward, exp_moments = case
    betas = (
        np.linspace(0, beta_max, temperatures)
        if radius is None
        else schedules.sigmoid(beta_max, temperatures, radius)
    )
    assert toy_x1.exact([beta_max]).log_z_IT.item() == pytest.approx(log_z, abs=1e-8)
    generator = torch.Generator().manual_seed(3)
    distortion, runs = toy_x1.full(), 10_000

    def exact_draws(beta: float) -> hmc.State:
        mean, covariance = toy_x1.posterior(beta)
        normals = torch.randn(1, runs, 2, generator=generator, dtype=torch.float64)
        return hmc.init(mean + normals @ torch.linalg.cholesky(covariance).T, distortion)

    def log_weights(path: np.ndarray) -> Tensor:
        zero = torch.zeros(1, dtype=torch.float64)
        chain = exact_draws(path[0])
        state = ais.AISState(chain, torch.zeros_like(chain.d_IM), zero, 0, zero, zero, zero)
        for before, after in pairwise(path):
            state = ais.reweight(state, after - before)
            state = state._replace(chain=exact_draws(after))
        return state.log_weight_IM[0]

    checks = [(log_weights(betas), forward), (-log_weights(betas[::-1]), backward)]
    if exp_moments:
        checks += [((checks[0][0] - log_z).exp(), 1), ((log_z - checks[1][0]).exp(), 1)]
    for values, expected in checks:
        assert abs(values.mean() - expected) < 4 * standard_error(values)


def test_bound_with_few_temperatures(toy_x1):
    """400 short runs: Ẑ is unbiased, the Lagrangian and the mean (R, D) lie above the curve.

    4 standard errors for the first (6e-5), 3 for the one-sided others (1e-3 each).
    """
    copies = 400
    distortion = SquaredError(toy_x1.full().decode, toy_x1.x_IN.repeat(copies, 1))
    run = make_run(distortion, tuning(np.linspace(0, 2, 30), 0.3), resample_below=0)
    last = measure(run, 8)[-1]
    exact = toy_x1.exact([2.0])
    ratio = (last.log_z_I - exact.log_z_IT[0]).exp()
    assert abs(ratio.mean() - 1) < 4 * standard_error(ratio)

    excess = exact.log_z_IT[0] - last.log_z_I
    assert -3 * standard_error(excess) < excess.mean() < 0.2
    # distance above the curve along its normal at the β of equal distortion
    betas = torch.logspace(-2, 2, 4001, dtype=torch.float64)
    curve = toy_x1.exact(betas)
    at = (curve.distortion_IT[0] - last.distortion_I.mean()).abs().argmin()
    above = last.rate_I - curve.rate_IT[0, at]
    above = above + betas[at] * (last.distortion_I - curve.distortion_IT[0, at])
    assert above.mean() > -3 * standard_error(above)
    assert last.rate_I.mean() == pytest.approx(2.499, abs=0.15)
    assert last.distortion_I.mean() == pytest.approx(1.132, abs=0.1)


def test_resampling_keeps_the_estimate_unbiased(toy_x1):
    """A schedule so coarse that most runs resample; one mean at 4 standard errors (6e-5)."""
    copies = 1000
    distortion = SquaredError(toy_x1.full().decode, toy_x1.x_IN.repeat(copies, 1))
    run = make_run(distortion, tuning(np.linspace(0, 2, 12), 0.3))
    rows = measure(run, 16)
    assert torch.stack([row.resampled_I for row in rows]).any(0).float().mean() > 0.9
    ratio = (rows[-1].log_z_I - toy_x1.exact([2.0]).log_z_IT[0]).exp()
    assert abs(ratio.mean() - 1) < 4 * standard_error(ratio)


def test_curves_are_monotone(toy):
    """D falls, R rises and chords have slopes between -β_{i+1} and -β_i, within 3 standard errors.

    4 one-sided statements at each of 15 chords, strongly dependent: fails at most with probability
    0.08.
    """
    copies = 100
    betas = np.concatenate([[0, 1e-6], np.geomspace(1e-3, 100, 149)])
    distortion = SquaredError(toy.full().decode, toy.x_IN.repeat(copies, 1))
    run = make_run(distortion, tuning(betas, toy_steps(betas)))
    rows = measure(run, 16)
    assert rows[0].beta == 1e-6 and rows[0].rate_I.abs().max() < 1e-3

    points = rows[::10]
    for low, high in pairwise(points):
        rise, fall = high.rate_I - low.rate_I, high.distortion_I - low.distortion_I
        for positive in (rise, -fall, rise + low.beta * fall, -(rise + high.beta * fall)):
            assert positive.mean() > -3 * standard_error(positive)


def test_prior_scale(toy):
    """N(0, σ²) on a decoder is N(0, 1) on a scaled one: 1 mean at 4 standard errors (6e-5)."""
    scale, copies = 2.5, 100
    distortion = SquaredError(
        lambda z: z @ toy.weight_NK.T / scale + toy.bias_N, toy.x_IN.repeat(copies, 1)
    )
    betas = np.concatenate([[0], np.geomspace(1e-2, 10, 60)])
    prior = Gaussian(2, scale)
    run = make_run(distortion, tuning(betas, scale * toy_steps(betas), prior=prior), prior=prior)
    ratio = (measure(run, 16)[-1].log_z_I - toy.exact([10.0]).log_z_IT[:, 0].repeat(copies)).exp()
    assert abs(ratio.mean() - 1) < 4 * standard_error(ratio)


def test_layout_does_not_matter(surrogate):
    problem = surrogate(4, 8)
    betas = schedules.sigmoid(100, 60)
    prior = Gaussian(4)
    frozen = tuning(betas, 0.3 / np.sqrt(1 + 8 * betas), prior=prior)
    decode = problem.full().decode

    def log_z(ids: list[int]) -> Tensor:
        run = make_run(SquaredError(decode, problem.x_IN[ids]), frozen, ids, prior)
        return torch.stack([row.log_z_I for row in measure(run, 6)], -1)

    whole = log_z(list(range(8)))
    order = [5, 2, 7, 0, 1, 6, 3, 4]
    torch.testing.assert_close(log_z(order), whole[order], rtol=1e-9, atol=0)
    for parts in (2, 4):
        split = torch.cat([log_z(list(ids)) for ids in np.split(np.arange(8), parts)])
        torch.testing.assert_close(split, whole, rtol=1e-9, atol=0)


def test_chains_do_not_depend_on_their_number(toy):
    run = make_run(toy.full(), tuning(np.linspace(0, 2, 20), 0.3), resample_below=0)
    few, many = ais.start(run, 3), ais.start(run, 9)
    while not ais.done(run, few):
        (few, _), (many, _) = ais.advance(run, few), ais.advance(run, many)
    torch.testing.assert_close(few.chain.z_IMK, many.chain.z_IMK[:, :3], rtol=1e-9, atol=1e-12)


def test_scaling_data_and_decoder(toy):
    betas = np.linspace(0, 2, 40)
    doubled = SquaredError(lambda z: 2 * toy.full().decode(z), 2 * toy.x_IN)
    plain = measure(make_run(toy.full(), tuning(betas, 0.3)), 8)
    scaled = measure(make_run(doubled, tuning(betas / 4, 0.3)), 8)
    for a, b in zip(plain, scaled, strict=True):
        torch.testing.assert_close(a.rate_I, b.rate_I, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_continues_exactly_from_any_temperature(toy, reverse):
    """The state goes through the tensors of a file, with float32 chains, resampling, a metric."""
    distortion = SquaredError(
        lambda z: z @ toy.weight_NK.T.float() + toy.bias_N.float(), toy.x_IN.float()
    )
    metric = {"metric_betas": np.array([0.1, 1]), "metric": np.array([[[2, 1], [1, 3]]] * 2) / 9}
    run = make_run(distortion, tuning(np.linspace(0, 2, 25), 0.5, **metric), reverse=reverse)
    first = ais.start_reverse(run, toy.x_IN[:, :2], 6) if reverse else ais.start(run, 6)
    straight = [(first, None)]
    while not ais.done(run, straight[-1][0]):
        straight.append(ais.advance(run, straight[-1][0]))
    assert len(straight) == 25
    for stop in (0, 1, 11, 23):
        saved = {k: v.clone() for k, v in ais.to_tensors(run, straight[stop][0]).items()}
        state = ais.from_tensors(run, saved)
        for index in range(stop + 1, 25):
            state, row = ais.advance(run, state)
            for a, b in zip(row, straight[index][1], strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
        for a, b in zip(state.chain, straight[-1][0].chain, strict=True):
            assert torch.equal(a, b)


def test_saved_chains_of_another_run_are_refused(toy):
    betas = np.linspace(0, 2, 25)
    run = make_run(toy.full(), tuning(betas, 0.3))
    saved = ais.to_tensors(run, ais.start(run, 4))
    metric = {"metric_betas": np.ones(1), "metric": np.full((1, 2), 2.0)}
    others = [
        ais.Walk(toy.full(), PRIOR, tuning(betas, 0.3), 8, range(2)),
        make_run(toy.full(), tuning(betas, 0.3), [1, 0]),
        make_run(toy.full(), tuning(betas, 0.31)),
        make_run(toy.full(), tuning(betas, 0.3, low_precision_until=1.0)),
        make_run(toy.full(), tuning(betas, 0.3, **metric)),
        make_run(toy.full(), tuning(betas, 0.3), resample_below=0),
        make_run(toy.full(), tuning(betas, 0.3), last=23),
        make_run(toy.full(), tuning(betas, 0.3), reverse=True),
        make_run(toy.full().of(toy.x_IN + 1), tuning(betas, 0.3)),
        make_run(toy.reduced("nll"), tuning(betas, 0.3)),
        make_run(toy.full(), tuning(betas, 0.3, prior=Gaussian(2, 2.0)), prior=Gaussian(2, 2.0)),
    ]
    for other in others:
        with pytest.raises(InputError, match="another walk"):
            ais.from_tensors(other, saved)


def test_non_finite_decoder_rows_keep_the_estimate_finite(toy):
    generator = torch.Generator().manual_seed(8)
    plain, calls = toy.full().decode, 0

    def decode(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        bad = (torch.rand(len(z), generator=generator) < 0.002) & (calls > 1)
        return plain(z) * torch.where(bad, torch.nan, 1.0)[:, None]

    betas = np.linspace(0, 2, 200)
    run = make_run(SquaredError(decode, toy.x_IN), tuning(betas, 0.3))
    rows = measure(run, 32)
    assert all(torch.stack([r.log_z_I, r.rate_I, r.distortion_I]).isfinite().all() for r in rows)
    # 5 decoder calls a transition: about 1 % of the proposals
    assert 60 < rows[-1].nonfinite_I.sum() < 200
    gap = toy.exact([2.0]).log_z_IT[:, 0] - rows[-1].log_z_I
    assert gap.abs().max() < 0.5


def test_refusals(toy):
    frozen = tuning([0, 1], 0.3)
    with pytest.raises(InputError, match="tuning round's seed"):
        ais.Walk(toy.full(), PRIOR, frozen, 6, range(2))
    with pytest.raises(InputError, match="3 image ids for 2 images"):
        make_run(toy.full(), frozen, range(3))
    with pytest.raises(InputError, match="for the prior Gaussian"):
        make_run(toy.full(), frozen, prior=Gaussian(2, 2.0))
    with pytest.raises(InputError, match="last temperature 2 is outside"):
        make_run(toy.full(), frozen, last=2)
    run = make_run(toy.full(), frozen)
    with pytest.raises(InputError, match="at least 1"):
        ais.start(run, 0)
    with pytest.raises(InputError, match="starts with start"):
        ais.start_reverse(run, torch.zeros(2, 2), 4)
    state, _ = ais.advance(run, ais.start(run, 1))
    with pytest.raises(InputError, match="last temperature"):
        ais.advance(run, state)
    backward = make_run(toy.full(), frozen, reverse=True)
    with pytest.raises(InputError, match="use start_reverse"):
        ais.start(backward, 4)
    with pytest.raises(InputError, match=r"takes \[2, 2\]"):
        ais.start_reverse(backward, torch.zeros(1, 2), 4)
    with pytest.raises(InputError, match="at least 1"):
        ais.start_reverse(backward, torch.zeros(2, 2), 0)
    broken = SquaredError(lambda z: toy.full().decode(z) / 0, toy.x_IN)
    with pytest.raises(InputError, match="not finite on prior samples"):
        ais.start(make_run(broken, frozen), 4)
