"""The tuning round: short annealed runs that adapt the kernel and measure how d fluctuates.

A pilot walks twice from the prior to β_max. The first walk explores: it measures how d fluctuates
and the covariance of the latents, which it uses as it goes. The second walk takes the schedule and
the metric from the first one and adapts the step size to them. Its step sizes, and the schedule
that follows from its fluctuations, are then frozen. No bound is taken from these walks, so
everything in them may adapt.

One step size per temperature is shared by all chains and images. It follows the acceptance of the
latest transition (Robbins and Monro, 1951); an average since the start would react too late and let
chains freeze. Chains are resampled on the way, so that the spread of d is the spread under q_β,
also where q_β has several modes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gencomp.errors import InputError
from gencomp.rate_distortion import ais, hmc, preconditioning, schedules
from gencomp.rate_distortion.distortion import Distortion
from gencomp.rate_distortion.pilot_state import (
    PilotRun,
    PilotSchedule,
    PilotState,
    Schedule,
    from_tensors,
    to_tensors,
)
from gencomp.rate_distortion.preconditioning import Preconditioner
from gencomp.rate_distortion.priors import Prior
from gencomp.rate_distortion.tuning import Tuning

__all__ = [
    "Pilot",
    "PilotRun",
    "PilotState",
    "advance",
    "done",
    "finish",
    "freeze",
    "from_tensors",
    "progress",
    "start",
    "to_tensors",
    "tune",
]

TARGET_ACCEPTANCE = 0.65
GAIN = 0.5
FIRST_STEP = 0.3  # in standard deviations of the prior
WINDOW = 0.02  # share of a walk: backwards for the metric, to either side for the step sizes
CESS = 0.99  # the conditional effective sample size of a step, as a share of the chains
# The longest trajectory in the metric's coordinates; a longer one would turn back in a round
# posterior.
LONGEST = math.pi / 2
KNOTS = 25  # the number of temperatures at which the metric is stored
SECOND = 2**32  # the second walk counts its transitions from here, so that its numbers are its own


class Pilot(NamedTuple):
    """The result of the tuning round."""

    betas: np.ndarray  # [P] the temperatures of the second walk
    mean_d: np.ndarray
    sd_d: np.ndarray
    step_sizes: np.ndarray
    acceptance: np.ndarray
    metric_betas: np.ndarray
    metric: np.ndarray
    schedule: np.ndarray  # [T] the schedule of the measuring round
    leapfrog: int
    latent_dim: int
    prior: str
    seed: int
    low_precision_until: float


def tune(
    distortion: Distortion,
    prior: Prior,
    *,
    beta_max: float,
    temperatures: int,
    chains: int,
    leapfrog: int,
    seed: int,
    image_ids: Sequence[int] | None = None,
    pilot_temperatures: int = 500,
    schedule: Schedule = "geodesic",
    pilot_schedule: PilotSchedule = "sigmoid",
    preconditioner: Preconditioner = "dense",
    low_precision_until: float = 0.0,
) -> Tuning:
    """Run both walks of a pilot in one call; the arguments are those of ``PilotRun``.

    Raises:
        InputError: a setting is out of range, or the distortion does not vary over the prior.
    """
    run = PilotRun(
        *(distortion, prior, beta_max, temperatures, chains, leapfrog, seed, image_ids),
        *(pilot_temperatures, schedule, pilot_schedule, preconditioner, low_precision_until),
    )
    state = start(run)
    while not done(run, state):
        state = advance(run, state)
    return freeze(finish(run, state))


def start(run: PilotRun) -> PilotState:
    """The state at the prior, before the first walk.

    Raises:
        InputError: the decoder is not finite on a prior sample.
    """
    chains = _at_prior(run)
    scatter = preconditioning.begin(run.preconditioner, chains.chain.z_IMK)
    nothing = torch.zeros(0, dtype=torch.float64)
    metric = scatter.products.new_zeros(0, *scatter.products.shape)
    empty = PilotState(chains, 0.0, nothing, nothing, scatter, nothing, metric)
    return _begin_walk(run, empty)


def advance(run: PilotRun, state: PilotState) -> PilotState:
    """Move on by one temperature, in the first walk or the second."""
    if done(run, state):
        raise InputError("the pilot is already done.")
    if _beta(state) == run.beta_max:
        state = _begin_walk(run, state._replace(chains=_at_prior(run), explored=state.rows))
    beta = _next_beta(run, state)
    transition = state.chains.temperature + 1
    resample_I, noise = ais.transition_noise(
        state.chains.chain, run.seed, run.ids, transition + _second(state) * SECOND
    )
    chains = ais.reweight(state.chains, beta - _beta(state))
    state = _observe(run, state, chains, beta)
    chains, _ = ais.resample(chains, resample_I, below=0.5)
    chain, info = run.kernel()(
        chains.chain,
        noise,
        beta,
        math.exp(state.log_step),
        ais.on_chain(_factor(run, state, beta), chains.chain),
        beta < run.low_precision_until,
    )
    chains = chains._replace(chain=chain, temperature=transition)
    acceptance = _judged(info)
    log_step = state.log_step + GAIN * (acceptance - TARGET_ACCEPTANCE)
    if run.preconditioner != "none":
        log_step = min(log_step, math.log(LONGEST / run.leapfrog))
    return state._replace(
        chains=chains,
        log_step=log_step,
        rows=torch.cat([state.rows, _row(chains, beta, log_step, acceptance)]),
    )


def done(run: PilotRun, state: PilotState) -> bool:
    return _second(state) and _beta(state) == run.beta_max


def progress(run: PilotRun, state: PilotState) -> tuple[int, int]:
    """The numbers of transitions done and in all; the latter is a maximum while "cess" explores."""
    first = len(state.explored) if _second(state) else run.pilot_temperatures
    before = first - 1 if _second(state) else 0
    return before + state.chains.temperature, first - 1 + run.second_length - 1


def finish(run: PilotRun, state: PilotState) -> Pilot:
    """The result of a pilot that is done."""
    betas, mean_d, sd_d, step_sizes, acceptance = state.rows.numpy().T.copy()
    return Pilot(
        *(betas, mean_d, sd_d, step_sizes, acceptance),
        metric_betas=state.metric_betas.numpy(),
        metric=state.metric.numpy(),
        schedule=_schedule(run, state.rows, run.temperatures),
        leapfrog=run.leapfrog,
        latent_dim=run.prior.latent_dim,
        prior=run.prior.identity,
        seed=run.seed,
        low_precision_until=run.low_precision_until,
    )


def freeze(pilot: Pilot, betas: np.ndarray | None = None) -> Tuning:
    """The tuning on the pilot's schedule, or on another schedule up to the pilot's last β.

    The step sizes are smoothed and interpolated in log β.
    """
    betas = schedules.check(pilot.schedule if betas is None else betas)
    if betas[-1] > pilot.betas[-1]:
        raise InputError(
            f"the pilot went to beta {pilot.betas[-1]}, but the schedule goes to {betas[-1]}."
        )
    log_steps = _smooth(np.log(pilot.step_sizes[1:]))
    log_pilot_betas = np.log(pilot.betas[1:])
    log_betas = np.log(np.maximum(betas, pilot.betas[1]))
    return Tuning(
        betas=betas,
        step_sizes=np.exp(np.interp(log_betas, log_pilot_betas, log_steps)),
        leapfrog=pilot.leapfrog,
        latent_dim=pilot.latent_dim,
        prior=pilot.prior,
        seed=pilot.seed,
        low_precision_until=pilot.low_precision_until,
        metric_betas=pilot.metric_betas,
        metric=pilot.metric,
        pilot_betas=pilot.betas,
        pilot_mean_d=pilot.mean_d,
        pilot_sd_d=pilot.sd_d,
        pilot_acceptance=pilot.acceptance,
    )


def _second(state: PilotState) -> bool:
    return len(state.explored) > 0


def _beta(state: PilotState) -> float:
    return state.rows[-1, 0].item()


def _at_prior(run: PilotRun) -> ais.AISState:
    return ais.start_at_prior(run.distortion, run.prior, run.seed, run.ids, run.chains)


def _begin_walk(run: PilotRun, state: PilotState) -> PilotState:
    # A metric contains the prior's scale; without a metric the step must contain it.
    scale = 1.0 if run.preconditioner != "none" else state.chains.chain.z_IMK.std().item()
    log_step = math.log(FIRST_STEP * scale)
    return state._replace(log_step=log_step, rows=_row(state.chains, 0.0, log_step, np.nan))


def _judged(info: hmc.Info) -> float:
    """The acceptance on the worst image, by which the step size is adapted.

    Posteriors differ in width, and chains that stand still cost far more than short steps.
    """
    return info.acceptance_IM.mean(-1).min().item()


def _row(chains: ais.AISState, beta: float, log_step: float, acceptance: float) -> Tensor:
    """A row [1, 5]: β, the weighted mean of d, the root of its mean variance, step, acceptance."""
    weight_IM = chains.log_weight_IM.softmax(-1)
    excess_IM = chains.chain.d_IM - chains.d_ref_I[:, None]
    mean_I1 = (weight_IM * excess_IM).sum(-1, keepdim=True)
    variance_I = (weight_IM * (excess_IM - mean_I1) ** 2).sum(-1)
    # This is Bessel's correction for weighted samples.
    variance_I = variance_I / (1 - weight_IM.square().sum(-1))
    mean_d = (mean_I1[:, 0] + chains.d_ref_I).mean().item()
    sd_d = variance_I.mean().sqrt().item()
    return torch.tensor([[beta, mean_d, sd_d, math.exp(log_step), acceptance]], dtype=torch.float64)


def _next_beta(run: PilotRun, state: PilotState) -> float:
    transition = state.chains.temperature + 1
    if _second(state):
        return float(_schedule(run, state.explored, run.second_length)[transition])
    if run.pilot_schedule == "sigmoid":
        return float(schedules.sigmoid(run.beta_max, run.pilot_temperatures)[transition])
    return schedules.next_by_cess(
        state.chains.chain.d_IM,
        state.chains.log_weight_IM,
        _beta(state),
        run.beta_max,
        CESS,
        run.pilot_temperatures - 1 - transition,
    )


def _schedule(run: PilotRun, rows: Tensor, temperatures: int) -> np.ndarray:
    if run.schedule == "sigmoid":
        return schedules.sigmoid(run.beta_max, temperatures)
    return schedules.geodesic(rows[:, 0].numpy(), rows[:, 2].numpy(), temperatures)


def _observe(run: PilotRun, state: PilotState, chains: ais.AISState, beta: float) -> PilotState:
    """Learn the metric, in the first walk, from chains that are weighted for β."""
    if _second(state) or run.preconditioner == "none":
        return state
    scatter = preconditioning.observe(
        *(state.scatter, chains.chain.z_IMK, chains.log_weight_IM, math.log(beta)),
        memory=max(1 - 1 / (WINDOW * run.pilot_temperatures), 0.5),
    )
    state = state._replace(scatter=scatter)
    if (chains.temperature + 1) % max(run.pilot_temperatures // KNOTS, 1) and beta < run.beta_max:
        return state
    knot = (scatter.log_beta / scatter.temperatures).exp()
    return state._replace(
        metric_betas=torch.cat([state.metric_betas, knot[None]]),
        metric=torch.cat([state.metric, preconditioning.covariance(scatter)[None]]),
    )


def _factor(run: PilotRun, state: PilotState, beta: float) -> np.ndarray | None:
    if run.preconditioner == "none":
        return None
    if _second(state):
        return preconditioning.factor(state.metric_betas.numpy(), state.metric.numpy(), beta)
    return preconditioning.root(preconditioning.covariance(state.scatter).numpy())


def _smooth(values: np.ndarray) -> np.ndarray:
    """The moving average over a window that shrinks at both ends."""
    reach = int(WINDOW * len(values))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    position = np.arange(len(values))
    half = np.minimum(np.minimum(position, len(values) - 1 - position), reach)
    return (sums[position + half + 1] - sums[position - half]) / (2 * half + 1)
