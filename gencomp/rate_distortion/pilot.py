"""The tuning round: a short annealed run that adapts the step size and measures how d fluctuates.

One step size per temperature is shared by all chains and images. It follows the acceptance of the
latest transition (Robbins and Monro 1951); an average since the start would react too late and let
chains freeze. Chains are resampled on the way, so that the spread of d is the spread under q_β,
also with several modes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gencomp.errors import InputError
from gencomp.rate_distortion import ais, hmc, random, schedules
from gencomp.rate_distortion.distortion import Distortion
from gencomp.rate_distortion.tuning import Tuning

TARGET_ACCEPTANCE = 0.65
GAIN = 0.5
FIRST_STEP = 0.3  # in units of the prior's standard deviation
SMOOTHING = 0.02  # of the pilot's length, either side


class Pilot(NamedTuple):
    """What the tuning round saw at its own temperatures, [P] float64."""

    betas: np.ndarray
    mean_d: np.ndarray
    sd_d: np.ndarray
    step_sizes: np.ndarray
    acceptance: np.ndarray
    leapfrog: int
    latent_dim: int
    prior_scale: float
    seed: int


def tune(
    distortion: Distortion,
    latent_dim: int,
    *,
    beta_max: float,
    temperatures: int,
    chains: int,
    leapfrog: int,
    seed: int,
    image_ids: Sequence[int] | None = None,
    prior_scale: float = 1.0,
    pilot_temperatures: int = 500,
) -> Tuning:
    """Explore with a sigmoid schedule, then freeze a geodesic one with ``temperatures`` points.

    Args:
        distortion: of the pilot's images; a few that resemble those to be measured are enough.
        image_ids: of the pilot's images; 0, 1, ... if not given.
        seed: must differ from the measuring round's.

    Raises:
        InputError: a setting out of range, or a distortion that does not vary over the prior.
    """
    pilot = explore(
        distortion,
        latent_dim,
        schedules.sigmoid(beta_max, pilot_temperatures),
        chains=chains,
        leapfrog=leapfrog,
        seed=seed,
        image_ids=image_ids,
        prior_scale=prior_scale,
    )
    return freeze(pilot, schedules.geodesic(pilot.betas, pilot.sd_d, temperatures))


def explore(
    distortion: Distortion,
    latent_dim: int,
    betas: np.ndarray,
    *,
    chains: int,
    leapfrog: int,
    seed: int,
    image_ids: Sequence[int] | None = None,
    prior_scale: float = 1.0,
) -> Pilot:
    """Anneal along ``betas`` with adaptation; one transition per temperature. See ``tune``."""
    if chains < 4 or leapfrog < 1 or latent_dim < 1 or not 0 < prior_scale < np.inf:
        raise InputError(
            f"chains {chains}, leapfrog {leapfrog}, latent_dim {latent_dim} and prior_scale "
            f"{prior_scale} must be positive, with at least 4 chains."
        )
    betas = schedules.check(betas)
    images = distortion.x_IN.shape[0]
    ids = random.check_keys(seed, range(images) if image_ids is None else image_ids)
    if len(ids) != images:
        raise InputError(f"{len(ids)} image ids for {images} images; one for each.")

    kernel = hmc.build_kernel(distortion, leapfrog, prior_scale)
    state = ais.start_at_prior(distortion, seed, ids, chains, latent_dim, prior_scale)
    step_size = FIRST_STEP * prior_scale
    rows = [(*_moments(state), step_size, np.nan)]
    for index in range(1, len(betas)):
        beta = float(betas[index])
        resample_I, noise = ais.transition_noise(state.chain, seed, ids, index)
        state = ais.reweight(state, beta - float(betas[index - 1]))
        state, _ = ais.resample(state, resample_I, below=0.5)
        chain, info = kernel(state.chain, noise, beta, step_size)
        state = state._replace(chain=chain, temperature=index)
        # Of the worst image: posteriors differ in width, and chains that stand still cost far more
        # than short steps.
        acceptance = info.acceptance_IM.mean(-1).min().item()
        step_size *= float(np.exp(GAIN * (acceptance - TARGET_ACCEPTANCE)))
        rows.append((*_moments(state), step_size, acceptance))
    mean_d, sd_d, step_sizes, acceptances = np.array(rows, dtype=np.float64).T
    return Pilot(
        betas, mean_d, sd_d, step_sizes, acceptances, leapfrog, latent_dim, prior_scale, seed
    )


def freeze(pilot: Pilot, betas: np.ndarray) -> Tuning:
    """A tuning on any schedule up to the pilot's last β: smoothed steps, interpolated in log β."""
    betas = schedules.check(betas)
    if betas[-1] > pilot.betas[-1]:
        raise InputError(f"the pilot went to beta {pilot.betas[-1]}, the schedule to {betas[-1]}.")
    log_steps = _smooth(np.log(pilot.step_sizes[1:]))
    log_pilot_betas = np.log(pilot.betas[1:])
    log_betas = np.log(np.maximum(betas, pilot.betas[1]))
    return Tuning(
        betas=betas,
        step_sizes=np.exp(np.interp(log_betas, log_pilot_betas, log_steps)),
        leapfrog=pilot.leapfrog,
        latent_dim=pilot.latent_dim,
        prior_scale=float(pilot.prior_scale),
        seed=pilot.seed,
        pilot_betas=pilot.betas,
        pilot_mean_d=pilot.mean_d,
        pilot_sd_d=pilot.sd_d,
        pilot_acceptance=pilot.acceptance,
    )


def _moments(state: ais.AISState) -> tuple[float, float]:
    """Weighted mean of d and root of its mean variance, over the images."""
    weight_IM = state.log_weight_IM.softmax(-1)
    mean_I1 = (weight_IM * state.chain.d_IM).sum(-1, keepdim=True)
    variance_I = (weight_IM * (state.chain.d_IM - mean_I1) ** 2).sum(-1)
    # weighted Bessel correction
    variance_I = variance_I / (1 - weight_IM.square().sum(-1))
    return mean_I1.mean().item(), variance_I.mean().sqrt().item()


def _smooth(values: np.ndarray) -> np.ndarray:
    """Moving average over a window that shrinks at both ends."""
    reach = int(SMOOTHING * len(values))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    position = np.arange(len(values))
    half = np.minimum(np.minimum(position, len(values) - 1 - position), reach)
    return (sums[position + half + 1] - sums[position - half]) / (2 * half + 1)
