"""A certificate for real images: lower bounds of log Z by chains that start at modes.

An annealed run from the prior estimates Z without bias, so what its chains miss makes log Ẑ too low
and R + β D = -log Ẑ too high. Bidirectional Monte Carlo measures that on images of the model alone.
For a given image Z is bounded from below a second time here, by other means: modes of q_β are
looked for by optimisation and from suggested latents (``modes``), and annealed importance sampling
goes from the mixture q around them to the target,

    f_t(z) = q(z)^{1-t} (p(z) exp(-β d(x, f(z))))^t,    t from 0 to 1.

Each of R groups of chains gives an independent Ẑ_r with E Ẑ_r = Z, whatever the mixture is. From
E Π Ẑ_r = Z^R and Markov's inequality follows, with a probability of at least 1 - α and without any
assumption on the distribution of weights,

    log Z ≥ mean_r log Ẑ_r - log(1/α) / R.

(For R = 1: Grosse, Ghahramani, Adams: Sandwiching the marginal likelihood using bidirectional Monte
Carlo, 2015.) Where this bound lies above the log Ẑ of the run from the prior, that run has missed
at least the difference. The bound says nothing about modes that neither search finds, and nothing
where its own chains find less than the run from the prior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gencomp.errors import InputError
from gencomp.rate_distortion import ais, modes, random
from gencomp.rate_distortion.distortion import Distortion
from gencomp.rate_distortion.modes import Mixture, Modes
from gencomp.rate_distortion.priors import Prior
from gencomp.rate_distortion.tuning import Tuning

GROUPS = 16  # independent estimates of Z for each image
CHAINS = 8  # chains in a group
TRANSITIONS = 20  # from the mixture to the target
# In the coordinates of the mixture a Gaussian target is round, so the step size needs no tuning:
# energy errors are of the order K · step⁴.
_STEP = 0.8
_LONGEST = math.pi / 2


class _Bridge:
    """The "distortion" δ = β d - log p + log q, for which q exp(-t δ) is the path f_t.

    Rows are grouped by image, as in ``Mixture``, and z comes in its coordinates.
    """

    name = "bridge"

    def __init__(
        self, distortion: Distortion, prior: Prior, beta: float, mixture: Mixture, groups: int
    ) -> None:
        self.prior, self.beta, self.mixture = prior, beta, mixture
        self.distortion = distortion.of(distortion.x_IN.repeat_interleave(groups, dim=0))

    @property
    def x_IN(self) -> Tensor:
        return self.distortion.x_IN

    def value_and_grad(self, y_BMK: Tensor) -> tuple[Tensor, Tensor]:
        z_BMK = self.mixture.latent(y_BMK)
        d_BM, grad_d_BMK = self.distortion.value_and_grad(z_BMK)
        potential_BM, grad_BMK = self.prior.potential_and_grad(z_BMK)
        own_BM, own_grad_BMK = self.mixture.potential_and_grad(y_BMK)
        value_BM = self.beta * d_BM + potential_BM + self.prior.log_normaliser - own_BM
        gradient_BMK = torch.add(grad_BMK, grad_d_BMK, alpha=self.beta)
        return value_BM, self.mixture.pull(gradient_BMK) - own_grad_BMK

    def grad(self, y_BMK: Tensor, low_precision: bool = False) -> Tensor:
        z_BMK = self.mixture.latent(y_BMK)
        grad_d_BMK = self.distortion.grad(z_BMK, low_precision)
        gradient_BMK = torch.add(self.prior.grad(z_BMK), grad_d_BMK, alpha=self.beta)
        return self.mixture.pull(gradient_BMK) - self.mixture.grad(y_BMK)

    def of(self, x_IN: Tensor) -> Distortion:
        raise InputError("a mixture around modes belongs to its own images.")

    def simulate(self, z_IK: Tensor, beta: float, normals_IN: Tensor) -> Tensor:
        raise InputError("no images are simulated from a mixture around modes.")


@dataclass(frozen=True, eq=False)
class Certification:
    """The annealed walk from a mixture around the modes of I images to their targets at one β.

    Attributes:
        distortion: the distortion of the images.
        prior: the prior.
        beta: the inverse temperature.
        found: the modes of the images at that β.
        leapfrog: the number of leapfrog steps of a trajectory.
        seed: the seed of the chains.
        image_ids: the ids of the images.
        groups, chains: the number of groups for each image, and of chains in a group.
        transitions: the number of transitions of the walk.
    """

    distortion: Distortion
    prior: Prior
    beta: float
    found: Modes
    leapfrog: int
    seed: int
    image_ids: Sequence[int]
    groups: int = GROUPS
    chains: int = CHAINS
    transitions: int = TRANSITIONS

    def walk(self) -> ais.Walk:
        """The walk, in which every group of an image counts as an image of its own."""
        mixture = Mixture(self.prior, self.found, self.distortion.x_IN.device)
        bridge = _Bridge(self.distortion, self.prior, self.beta, mixture, self.groups)
        latent_dim = self.prior.latent_dim
        step = min(_STEP * latent_dim**-0.25, _LONGEST / self.leapfrog)
        tuning = Tuning(
            betas=np.linspace(0, 1, self.transitions + 1),
            step_sizes=np.full(self.transitions + 1, step),
            leapfrog=self.leapfrog,
            latent_dim=latent_dim,
            prior=mixture.identity,
            # The search for modes is the tuning round of these chains.
            seed=random.derived_seed(self.seed, "tuning of a certificate"),
        )
        ids = [
            image * self.groups + group for image in self.image_ids for group in range(self.groups)
        ]
        seed = random.derived_seed(self.seed, f"chains of a certificate at beta {self.beta!r}")
        return ais.Walk(bridge, mixture, tuning, seed, ids)

    def estimates(self, walk: ais.Walk, state: ais.AISState) -> Estimates:
        """The estimates at the end of the walk."""
        bridge = walk.distortion
        assert isinstance(bridge, _Bridge)
        row = ais.estimate(walk, state)
        z_BMK = bridge.mixture.latent(state.chain.z_IMK)
        d_BM, _ = bridge.distortion.value_and_grad(z_BMK)
        distortion_B = (state.log_weight_IM.softmax(-1) * d_BM).sum(-1)
        columns = (row.log_z_I, distortion_B, row.ess_I)
        return Estimates(*(column.view(-1, self.groups).cpu() for column in columns))


class Estimates(NamedTuple):
    """The independent estimates of the R groups of each image, float64 on the CPU."""

    log_z_IR: Tensor  # nats
    distortion_IR: Tensor
    ess_IR: Tensor


def lower_bound(log_z_IR: np.ndarray, alpha: float) -> np.ndarray:
    """The lower bound of log Z of each image, [I], in nats.

    It holds for each image with a probability of at least 1 - ``alpha``. The bound of a mean over
    images is that of one image with the groups of all images.

    Args:
        log_z_IR: the log of R independent, unbiased estimates of Z of each image.
        alpha: the greatest probability of an error, in (0, 1).
    """
    if not 0 < alpha < 1:
        raise InputError(f"the probability of an error is {alpha}; it must lie between 0 and 1.")
    return np.asarray(log_z_IR.mean(-1) - math.log(1 / alpha) / log_z_IR.shape[-1])


def certify(
    distortion: Distortion,
    prior: Prior,
    beta: float,
    *,
    leapfrog: int,
    seed: int,
    image_ids: Sequence[int],
    starts: int = 16,
    suggested_ISK: Tensor | None = None,
) -> Estimates:
    """Look for modes at β and run the chains that start there, in one call.

    The arguments are those of ``modes.find`` and ``Certification``.
    """
    found = modes.find(
        *(distortion, prior, beta),
        starts=starts,
        seed=seed,
        image_ids=image_ids,
        suggested_ISK=suggested_ISK,
    )
    run = Certification(distortion, prior, beta, found, leapfrog, seed, image_ids)
    walk = run.walk()
    state = ais.start(walk, run.chains)
    while not ais.done(walk, state):
        state, _ = ais.advance(walk, state)
    return run.estimates(walk, state)
