"""Annealed importance sampling over the path f_t(z) = p(z) exp(-t d(x, f(z))), t from 0 to β_max.

(Neal: Annealed importance sampling, 2001; Huang, Makhzani, Cao, Grosse: Evaluating Lossy
Compression Rates of Deep Generative Models, ICML 2020.) At every temperature the chains are
reweighted, then resampled if the weights of an image have become too uneven, and then moved. After
every move the weighted chains estimate log Z, D and R at that temperature. The estimate of Z is
unbiased, so R + βD is, in expectation, an upper bound; R or D alone at the same β is not.

The same walk from an exact sample of q_β back to the prior estimates 1/Z_β without bias, which
bounds log Z from above (Grosse, Ghahramani, Adams: Sandwiching the marginal likelihood using
bidirectional Monte Carlo, 2015). All chains of an image may start at the same sample, and may be
resampled: the estimate is a sum over chains and linear in the start, so it suffices that the start
of each chain is an exact sample.

Saved chains continue bit for bit if the ``Walk`` has the same images, and the machine is of the
same kind and uses the same number of threads. So split the images into fixed blocks and give whole
blocks to jobs; then the number of jobs does not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gencomp.errors import InputError
from gencomp.rate_distortion import hmc, random, resampling
from gencomp.rate_distortion.distortion import Distortion
from gencomp.rate_distortion.priors import Prior
from gencomp.rate_distortion.tuning import Tuning


@dataclass(frozen=True, eq=False)
class Walk:
    """The settings of a walk, which stay fixed while a block of images is measured.

    Attributes:
        distortion: the distortion d of I images.
        prior: the prior that the tuning was found for.
        tuning: the schedule, step sizes, metric and trajectory length of a tuning round.
        seed: the seed of this round, which must differ from the tuning round's.
        image_ids: I integers in [0, 2^63) that name the images; they key the random numbers.
        resample_below: an image's chains are resampled when its effective sample size falls below
            this fraction of their number; 0 never resamples (plain annealed importance sampling).
        last: the index of the path's highest β in the schedule; by default the schedule's last.
        reverse: whether to walk from that β down to 0.

    Raises:
        InputError: the seed is the tuning round's (the bounds would not hold), the prior is not
            the tuning's, or the ids or the last temperature do not fit.
    """

    distortion: Distortion
    prior: Prior
    tuning: Tuning
    seed: int
    image_ids: Sequence[int]
    resample_below: float = 0.5
    last: int | None = None
    reverse: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_ids", random.check_keys(self.seed, self.image_ids))
        images = self.distortion.x_IN.shape[0]
        if len(self.image_ids) != images:
            raise InputError(
                f"there are {len(self.image_ids)} image ids for {images} images; each needs one."
            )
        if self.seed == self.tuning.seed:
            raise InputError(
                f"seed {self.seed} is the tuning round's seed; measure with another one, or the "
                "bound does not hold."
            )
        if self.prior.identity != self.tuning.prior:
            raise InputError(
                f"the tuning is for the prior {self.tuning.prior}, not for {self.prior.identity}."
            )
        final = self.tuning.temperatures - 1
        if self.last is None:
            object.__setattr__(self, "last", final)
        elif not 1 <= self.last <= final:
            raise InputError(f"last temperature {self.last} is outside 1 ... {final}.")

    @property
    def length(self) -> int:
        """The number of transitions of the path."""
        assert self.last is not None  # set on construction
        return self.last

    @cached_property
    def betas(self) -> np.ndarray:
        """The inverse temperatures in the order of the walk, [length + 1]."""
        up = self.tuning.betas[: self.length + 1]
        return up[::-1] if self.reverse else up

    def kernel(self) -> hmc.Kernel:
        return hmc.build_kernel(self.distortion, self.prior, self.tuning.leapfrog)

    @cached_property
    def fingerprint(self) -> Tensor:
        """The SHA-256 of everything but the decoder that the chains depend on, uint8 [32]."""
        settings = (
            *(self.tuning.hash, self.prior.identity, self.seed, self.image_ids),
            *(self.resample_below, self.last, self.reverse),
        )
        return fingerprint(settings, self.distortion)


class AISState(NamedTuple):
    """The chains after some transitions, as a tuple of tensors and one integer."""

    chain: hmc.State
    log_weight_IM: Tensor  # float64, the log weights for d - d_ref
    d_ref_I: Tensor  # float64; it keeps the sums small and cancels exactly in R
    temperature: int  # the number of transitions done, an index into the path's betas
    nonfinite_I: Tensor  # int64, the number of proposals rejected so far as not finite
    excess_I: Tensor  # float64, the weighted mean of d - d_ref
    integral_I: Tensor  # float64, ∫ excess dβ along the path so far


class Row(NamedTuple):
    """The estimates for each image at one temperature, float64 on the state's device.

    On a reversed path, log_z estimates the log of Z_β/Z_start, and the rate is not a number.
    """

    temperature: int  # the number of transitions done
    beta: float
    log_z_I: Tensor  # nats
    rate_I: Tensor  # nats per image, -log Z - β D
    distortion_I: Tensor
    ess_I: Tensor  # the effective sample size, 1..M
    acceptance_I: Tensor  # mean acceptance probability of this transition; nan before the first
    resampled_I: Tensor  # bool, whether the chains were resampled at this temperature
    nonfinite_I: Tensor  # int64, the number of proposals that were not finite since the start
    log_z_integral_I: Tensor  # nats, -∫ D dβ over all temperatures so far: no bound, a cross-check


def start(walk: Walk, chains: int) -> AISState:
    """The state at β = 0: ``chains`` exact samples of the prior per image, with equal weights.

    Raises:
        InputError: the decoder is not finite on a prior sample, or the walk is reversed.
    """
    if walk.reverse:
        raise InputError("a reversed path starts at its own samples; use start_reverse.")
    return start_at_prior(walk.distortion, walk.prior, walk.seed, walk.image_ids, chains)


def start_reverse(walk: Walk, z_IK: Tensor, chains: int) -> AISState:
    """The state of a reversed walk at its highest β, with all chains of image i at ``z_IK[i]``.

    Each ``z_IK[i]`` must be an exact sample of the image's q_β at that β.

    Raises:
        InputError: the walk is not reversed, or the samples do not fit or are not finite.
    """
    if not walk.reverse:
        raise InputError("a path from the prior starts with start, not with start_reverse.")
    _check_chains(chains)
    images, latent_dim = len(walk.image_ids), walk.prior.latent_dim
    if z_IK.shape != (images, latent_dim):
        raise InputError(
            f"the start samples are {list(z_IK.shape)}; the walk takes [{images}, {latent_dim}]."
        )
    return _start(walk.distortion, z_IK[:, None].expand(-1, chains, -1))


def advance(walk: Walk, state: AISState) -> tuple[AISState, Row]:
    """Move on by one temperature, with L forward and L backward passes of the decoder."""
    if done(walk, state):
        raise InputError(f"the chains are already at the last temperature, {state.temperature}.")
    transition, tuning = state.temperature + 1, walk.tuning
    temperature = walk.length - transition if walk.reverse else transition
    beta, before = float(walk.betas[transition]), float(walk.betas[transition - 1])
    purpose = random.PURPOSE_REVERSE if walk.reverse else random.PURPOSE_TRANSITION
    uniform_I, noise = transition_noise(state.chain, walk.seed, walk.image_ids, transition, purpose)

    state = reweight(state, beta - before)
    state, resampled_I = resample(state, uniform_I, walk.resample_below)
    chain, info = walk.kernel()(
        state.chain,
        noise,
        beta,
        float(tuning.step_sizes[temperature]),
        on_chain(tuning.factor(temperature), state.chain),
        beta < tuning.low_precision_until,
    )
    excess_I = _mean_excess(chain.d_IM, state)
    state = state._replace(
        chain=chain,
        temperature=transition,
        nonfinite_I=state.nonfinite_I + info.nonfinite_IM.sum(-1),
        excess_I=excess_I,
        integral_I=state.integral_I + (beta - before) * 0.5 * (state.excess_I + excess_I),
    )
    return state, estimate(walk, state, info.acceptance_IM.mean(-1), resampled_I)


def done(walk: Walk, state: AISState) -> bool:
    return state.temperature >= walk.length


def start_at_prior(
    distortion: Distortion, prior: Prior, seed: int, image_ids: Sequence[int], chains: int
) -> AISState:
    """The state at β = 0, as ``start`` gives it."""
    _check_chains(chains)
    return _start(distortion, prior.draw(seed, image_ids, chains))


def _check_chains(chains: int) -> None:
    if chains < 1:
        raise InputError(f"there are {chains} chains per image; there must be at least 1.")


def _start(distortion: Distortion, z_IMK: Tensor) -> AISState:
    x_IN = distortion.x_IN
    chain = hmc.init(z_IMK.to(x_IN.device, x_IN.dtype).contiguous(), distortion)
    if not (chain.d_IM.isfinite().all() and chain.grad_d_IMK.isfinite().all()):
        raise InputError(
            "the decoder gives values or gradients that are not finite on prior samples."
        )
    d_ref_I = chain.d_IM.min(-1).values
    return AISState(
        chain=chain,
        log_weight_IM=torch.zeros_like(chain.d_IM),
        d_ref_I=d_ref_I,
        temperature=0,
        nonfinite_I=torch.zeros_like(d_ref_I, dtype=torch.int64),
        excess_I=(chain.d_IM - d_ref_I[:, None]).mean(-1),
        integral_I=torch.zeros_like(d_ref_I),
    )


def transition_noise(
    chain: hmc.State,
    seed: int,
    image_ids: Sequence[int],
    transition: int,
    purpose: int = random.PURPOSE_TRANSITION,
) -> tuple[Tensor, hmc.Noise]:
    """The keyed numbers of one transition: the resampling uniforms [I] and the kernel's noise."""
    _, chains, latent_dim = chain.z_IMK.shape
    device = chain.z_IMK.device
    numbers = random.transition_numbers(seed, image_ids, transition, chains, latent_dim, purpose)
    resample_I, *noise = (torch.from_numpy(values).to(device) for values in numbers)
    return resample_I, hmc.Noise(*noise)


def on_chain(factor: np.ndarray | None, chain: hmc.State) -> Tensor | None:
    """A metric's factor on the device and in the type of the chains."""
    return None if factor is None else torch.from_numpy(factor).to(chain.z_IMK)


def reweight(state: AISState, step: float) -> AISState:
    """Move the target by ``step`` in β, but not the chains: log w -= step · (d - d_ref)."""
    excess_IM = state.chain.d_IM - state.d_ref_I[:, None]
    return state._replace(log_weight_IM=state.log_weight_IM - step * excess_IM)


def resample(state: AISState, uniform_I: Tensor, below: float) -> tuple[AISState, Tensor]:
    """Resample the chains of the images whose effective sample size is below ``below`` · M.

    The function returns the state, and whether each image was resampled, bool [I]. The chains of a
    resampled image all get their mean weight, so log Z is unchanged.
    """
    log_weight_IM = state.log_weight_IM
    images, chains = log_weight_IM.shape
    chosen_I = resampling.effective_sample_size(log_weight_IM) < below * chains
    if below == 0:
        return state, chosen_I
    chosen_I1 = chosen_I[:, None]
    identity_IM = torch.arange(chains, device=log_weight_IM.device).expand(images, chains)
    ancestors_IM = torch.where(
        chosen_I1, resampling.systematic_ancestors(log_weight_IM, uniform_I), identity_IM
    )
    ancestors_IMK = ancestors_IM[..., None].expand_as(state.chain.z_IMK)
    chain = hmc.State(
        state.chain.z_IMK.gather(1, ancestors_IMK),
        state.chain.d_IM.gather(1, ancestors_IM),
        state.chain.grad_d_IMK.gather(1, ancestors_IMK),
    )
    equal_I1 = resampling.log_mean_exp(log_weight_IM)[:, None]
    log_weight_IM = torch.where(chosen_I1, equal_I1, log_weight_IM)
    return state._replace(chain=chain, log_weight_IM=log_weight_IM), chosen_I


def estimate(
    walk: Walk,
    state: AISState,
    acceptance_I: Tensor | None = None,
    resampled_I: Tensor | None = None,
) -> Row:
    """Estimate log Z = log mean w, D = Σ W d and R = -log Z - β D; d_ref cancels in R."""
    d_ref_I, excess_I = state.d_ref_I, state.excess_I
    beta = float(walk.betas[state.temperature])
    walked = beta - float(walk.betas[0])
    log_z_excess_I = resampling.log_mean_exp(state.log_weight_IM)
    nothing_I = torch.full_like(d_ref_I, torch.nan)
    return Row(
        temperature=state.temperature,
        beta=beta,
        log_z_I=log_z_excess_I - walked * d_ref_I,
        rate_I=nothing_I if walk.reverse else -log_z_excess_I - beta * excess_I,
        distortion_I=d_ref_I + excess_I,
        ess_I=resampling.effective_sample_size(state.log_weight_IM),
        acceptance_I=nothing_I if acceptance_I is None else acceptance_I,
        resampled_I=torch.zeros_like(d_ref_I).bool() if resampled_I is None else resampled_I,
        nonfinite_I=state.nonfinite_I,
        log_z_integral_I=-state.integral_I - walked * d_ref_I,
    )


def _mean_excess(d_IM: Tensor, state: AISState) -> Tensor:
    weight_IM = torch.softmax(state.log_weight_IM, -1)
    return (weight_IM * (d_IM - state.d_ref_I[:, None])).sum(-1)


def to_tensors(walk: Walk, state: AISState) -> dict[str, Tensor]:
    """The state as a flat dictionary of CPU tensors, with the fingerprint of its walk."""
    tensors = {**flatten(state), "fingerprint": walk.fingerprint}
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def from_tensors(walk: Walk, tensors: dict[str, Tensor]) -> AISState:
    """The state that ``to_tensors`` has saved.

    Raises:
        InputError: the tensors belong to another walk (tuning, prior, seed, images, path, dtype).
    """
    names = {*TENSORS, "fingerprint"}
    if set(tensors) != names or not torch.equal(tensors["fingerprint"].cpu(), walk.fingerprint):
        raise InputError(
            "the saved chains belong to another walk (tuning, prior, seed, images, path or dtype)."
        )
    return unflatten(tensors, walk.distortion.x_IN.device)


def fingerprint(settings: tuple[object, ...], distortion: Distortion) -> Tensor:
    """The SHA-256 of settings, the distortion's images and its kind, uint8 [32]."""
    x_IN = distortion.x_IN
    kind = [getattr(distortion, name, None) for name in ("name", "forces")]
    digest = hashlib.sha256(repr((settings, kind, str(x_IN.dtype), tuple(x_IN.shape))).encode())
    digest.update(x_IN.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)


TENSORS = (
    *hmc.State._fields,
    *(name for name in AISState._fields if name != "chain"),
)


def flatten(state: AISState) -> dict[str, Tensor]:
    """The tensors of a state under the names ``TENSORS``."""
    rest = {name: value for name, value in state._asdict().items() if name != "chain"}
    return {**state.chain._asdict(), **rest, "temperature": torch.tensor(state.temperature)}


def unflatten(tensors: dict[str, Tensor], device: torch.device) -> AISState:
    """The state that ``flatten`` has taken apart."""
    on_device = {name: tensors[name].to(device) for name in TENSORS}
    chain = hmc.State(*(on_device.pop(name) for name in hmc.State._fields))
    temperature = int(on_device.pop("temperature"))
    return AISState(chain=chain, temperature=temperature, **on_device)
