"""Bidirectional Monte Carlo bounds the error of log Z on data simulated from the decoder itself.

For one β draw z* ~ p(z) and x ~ exp(-β d(x, f(z*))), normalised over x. Then z* is an exact sample
of q_β(z|x). Two annealed runs bound log Z_β(x) from both sides, each in expectation:

    forward   from the prior up to β        E log Ẑ ≤ log Z, since E Ẑ = Z
    backward  from z* down to the prior    -E log Ŵ ≥ log Z, since E Ŵ = 1/Z for the mean weight Ŵ

Their difference, the gap, is in expectation the sum of both errors. A small gap certifies the
sampler on images of the model; on other images it is evidence, not proof. (Grosse, Ghahramani,
Adams: Sandwiching the marginal likelihood using bidirectional Monte Carlo, 2015; Wu, Burda,
Salakhutdinov, Grosse: On the quantitative analysis of decoder-based generative models, 2017.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gencomp.errors import InputError
from gencomp.evaluation import intervals
from gencomp.rate_distortion import ais, random
from gencomp.rate_distortion.distortion import Distortion
from gencomp.rate_distortion.priors import Prior
from gencomp.rate_distortion.tuning import Tuning


class Simulated(NamedTuple):
    """Images simulated at one β, each with an exact sample of its posterior, in the dtype of x."""

    z_IK: Tensor
    x_IN: Tensor


class Gap(NamedTuple):
    """The bounds of log Z for each simulated image in nats, float64."""

    beta: float
    forward_I: Tensor  # the lower bound, in expectation
    backward_I: Tensor  # the upper bound, in expectation

    @property
    def gap_I(self) -> Tensor:
        """The gap backward - forward of each image."""
        return self.backward_I - self.forward_I

    @property
    def gap(self) -> float:
        """The mean gap over images, which is not negative in expectation."""
        return self.gap_I.mean().item()

    @property
    def standard_error(self) -> float:
        """The standard error of ``gap`` over the images; not a number for a single image."""
        return intervals.standard_error(self.gap_I.cpu().numpy())

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of ``gap``; not numbers for a single image."""
        return intervals.of_mean(self.gap_I.cpu().numpy()) or (math.nan, math.nan)


def simulate(
    distortion: Distortion, prior: Prior, beta: float, seed: int, image_ids: Sequence[int]
) -> Simulated:
    """Simulate one image for each id, as a function of (seed, id, β) alone.

    At another β, an id keeps its z* and the direction of its noise.

    Args:
        distortion: a distortion of any images; only its decoder and the images' size matter.
        prior: the prior that z* is drawn from.
        beta: the inverse temperature.
        seed: the seed of the simulation alone, so that rounds of tuning and measuring may change
            their seeds and still use the same images.
        image_ids: the ids of the images.

    Raises:
        InputError: β is not positive, an id or the seed is out of range, or images of this
            distortion cannot be drawn exactly.
    """
    ids = random.check_keys(seed, image_ids)
    if not 0 < beta < math.inf:
        raise InputError(f"images cannot be simulated at beta {beta}; it must be positive.")
    x_IN = distortion.x_IN
    # z* has its own key, since the first chain of a run with the same seed must not start at z*.
    z_IK = prior.draw(random.derived_seed(seed, "simulated latent"), ids, 1)[:, 0].to(
        x_IN.device, x_IN.dtype
    )
    normals_IN = torch.from_numpy(random.simulation_normals(seed, ids, x_IN.shape[1]))
    return Simulated(z_IK, distortion.simulate(z_IK, beta, normals_IN.to(x_IN)))


def forward_run(
    distortion: Distortion,
    prior: Prior,
    tuning: Tuning,
    simulated: Simulated,
    last: int,
    seed: int,
    image_ids: Sequence[int],
) -> ais.Walk:
    """The walk from the prior to temperature ``last``, at whose β the images were simulated.

    The ``log_z_I`` of its last row is a lower bound of log Z.

    Raises:
        InputError: ``ais.Walk`` refuses the settings.
    """
    return ais.Walk(distortion.of(simulated.x_IN), prior, tuning, seed, image_ids, last=last)


def reverse_run(
    distortion: Distortion,
    prior: Prior,
    tuning: Tuning,
    simulated: Simulated,
    last: int,
    seed: int,
    image_ids: Sequence[int],
) -> ais.Walk:
    """The walk from temperature ``last`` to the prior; ``ais.start_reverse`` starts it at z*.

    The ``log_z_I`` of its last row is a lower bound of log 1/Z, so its negative is an upper bound
    of log Z.

    Raises:
        InputError: ``ais.Walk`` refuses the settings.
    """
    return ais.Walk(
        distortion.of(simulated.x_IN), prior, tuning, seed, image_ids, last=last, reverse=True
    )


def bracket(
    distortion: Distortion,
    prior: Prior,
    tuning: Tuning,
    last: int,
    *,
    chains: int,
    seed: int,
    simulation_seed: int,
    image_ids: Sequence[int],
) -> Gap:
    """Simulate images at temperature ``last`` of the tuning and run both walks, in one call.

    Args:
        distortion: a distortion of any images; only its decoder and the images' size matter.
        prior: the prior that the tuning was found for.
        tuning: the frozen sampler of a tuning round.
        last: the index of the temperature.
        chains: the number of chains per image and direction.
        seed: the seed of both walks, which must differ from the tuning round's.
        simulation_seed: the seed of the simulated images.
        image_ids: the ids of the simulated images.

    Raises:
        InputError: ``simulate`` or ``ais.Walk`` refuses the settings.
    """
    if not 1 <= last < tuning.temperatures:
        raise InputError(f"last temperature {last} is outside 1 ... {tuning.temperatures - 1}.")
    beta = float(tuning.betas[last])
    simulated = simulate(distortion, prior, beta, simulation_seed, image_ids)
    settings = (distortion, prior, tuning, simulated, last, seed, image_ids)
    forward, reverse = forward_run(*settings), reverse_run(*settings)
    up = _final(forward, ais.start(forward, chains))
    down = _final(reverse, ais.start_reverse(reverse, simulated.z_IK, chains))
    return Gap(beta, forward_I=up.log_z_I, backward_I=-down.log_z_I)


def _final(run: ais.Walk, state: ais.AISState) -> ais.Row:
    while not ais.done(run, state):
        state, row = ais.advance(run, state)
    return row
