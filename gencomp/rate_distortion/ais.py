"""Annealed importance sampling over the path f_t(z) = p(z) exp(-t d(x, f(z))), t from 0 to β_max.

(Neal: Annealed importance sampling, 2001; Huang, Makhzani, Cao, Grosse: Evaluating Lossy
Compression Rates of Deep Generative Models, ICML 2020.) At every temperature: reweight, resample
if the weights of an image have become too uneven, move. After every move the weighted chains
estimate log Z, D and R there. The estimate of Z is unbiased, so R + βD is, in expectation, an
upper bound; R or D alone at the same β is not.

Continuing saved chains is bit-identical for the same images in a ``Run``, the same number of
threads and the same kind of machine. So split work into fixed blocks of images and give whole
blocks to jobs: the number of jobs is then free.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gencomp.errors import InputError
from gencomp.rate_distortion import hmc, random, resampling
from gencomp.rate_distortion.distortion import Distortion
from gencomp.rate_distortion.tuning import Tuning


@dataclass(frozen=True, eq=False)
class Run:
    """What stays fixed while a block of images is measured.

    Attributes:
        distortion: d for I images.
        tuning: schedule, step sizes and trajectory length of a tuning round.
        seed: of this round, not the tuning round's.
        image_ids: I integers in [0, 2^63) that name the images; they key the random numbers.
        resample_below: an image's chains are resampled when its effective sample size falls below
            this fraction of their number; 0 never resamples (plain annealed importance sampling).

    Raises:
        InputError: the seed is the tuning round's (the bounds would not hold), or the ids do not
            fit.
    """

    distortion: Distortion
    tuning: Tuning
    seed: int
    image_ids: Sequence[int]
    resample_below: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_ids", random.check_keys(self.seed, self.image_ids))
        images = self.distortion.x_IN.shape[0]
        if len(self.image_ids) != images:
            raise InputError(f"{len(self.image_ids)} image ids for {images} images; one for each.")
        if self.seed == self.tuning.seed:
            raise InputError(
                f"seed {self.seed} is the tuning round's seed; measure with another one, or the "
                "bound does not hold."
            )

    def kernel(self) -> hmc.Kernel:
        return hmc.build_kernel(self.distortion, self.tuning.leapfrog, self.tuning.prior_scale)


class AISState(NamedTuple):
    """The chains at one temperature; a tuple of tensors and one integer."""

    chain: hmc.State
    log_weight_IM: Tensor  # float64, of d - d_ref
    d_ref_I: Tensor  # float64; keeps the sums small and cancels exactly in R
    temperature: int  # index into the schedule
    nonfinite_I: Tensor  # int64, proposals rejected so far because they were not finite


class Row(NamedTuple):
    """Per-image estimates at one temperature, float64 on the state's device."""

    temperature: int
    beta: float
    log_z_I: Tensor  # nats
    rate_I: Tensor  # nats per image, -log Z - β D
    distortion_I: Tensor
    ess_I: Tensor  # effective sample size, 1..M
    acceptance_I: Tensor  # mean acceptance probability of this transition; nan before the first
    resampled_I: Tensor  # bool, at this temperature
    nonfinite_I: Tensor  # int64, since the start


def start(run: Run, chains: int) -> AISState:
    """``chains`` exact samples of the prior per image, at β = 0 with equal weights.

    Raises:
        InputError: the decoder is not finite on a prior sample.
    """
    if chains < 1:
        raise InputError(f"{chains} chains per image; at least 1.")
    return start_at_prior(
        run.distortion,
        run.seed,
        run.image_ids,
        chains,
        run.tuning.latent_dim,
        run.tuning.prior_scale,
    )


def advance(run: Run, state: AISState) -> tuple[AISState, Row]:
    """One temperature further: L forward and L backward passes of the decoder."""
    if done(run, state):
        raise InputError(f"the chains are already at the last temperature, {state.temperature}.")
    temperature, betas = state.temperature + 1, run.tuning.betas
    beta = float(betas[temperature])
    numbers, noise = transition_noise(state.chain, run.seed, run.image_ids, temperature)

    state = reweight(state, beta - float(betas[temperature - 1]))
    state, resampled_I = resample(state, numbers, run.resample_below)
    chain, info = run.kernel()(state.chain, noise, beta, float(run.tuning.step_sizes[temperature]))
    state = state._replace(
        chain=chain,
        temperature=temperature,
        nonfinite_I=state.nonfinite_I + info.nonfinite_IM.sum(-1),
    )
    return state, estimate(state, beta, info.acceptance_IM.mean(-1), resampled_I)


def done(run: Run, state: AISState) -> bool:
    return state.temperature >= run.tuning.temperatures - 1


def start_at_prior(
    distortion: Distortion,
    seed: int,
    image_ids: Sequence[int],
    chains: int,
    latent_dim: int,
    prior_scale: float,
) -> AISState:
    """See ``start``."""
    x_IN = distortion.x_IN
    normals = random.start_normals(seed, image_ids, chains, latent_dim)
    z_IMK = (prior_scale * torch.from_numpy(normals)).to(x_IN.device, x_IN.dtype)
    chain = hmc.init(z_IMK, distortion)
    if not (chain.d_IM.isfinite().all() and chain.grad_d_IMK.isfinite().all()):
        raise InputError(
            "the decoder gives values or gradients that are not finite on prior samples."
        )
    return AISState(
        chain=chain,
        log_weight_IM=torch.zeros_like(chain.d_IM),
        d_ref_I=chain.d_IM.min(-1).values,
        temperature=0,
        nonfinite_I=torch.zeros(x_IN.shape[0], dtype=torch.int64, device=x_IN.device),
    )


def transition_noise(
    chain: hmc.State, seed: int, image_ids: Sequence[int], temperature: int
) -> tuple[Tensor, hmc.Noise]:
    """Keyed numbers of one temperature: resampling uniforms [I] and the kernel's noise."""
    _, chains, latent_dim = chain.z_IMK.shape
    device = chain.z_IMK.device
    numbers = random.transition_numbers(seed, image_ids, temperature, chains, latent_dim)
    resample_I, *noise = (torch.from_numpy(values).to(device) for values in numbers)
    return resample_I, hmc.Noise(*noise)


def reweight(state: AISState, step: float) -> AISState:
    """Move the target by ``step`` in β without moving the chains: log w -= step · (d - d_ref)."""
    excess_IM = state.chain.d_IM - state.d_ref_I[:, None]
    return state._replace(log_weight_IM=state.log_weight_IM - step * excess_IM)


def resample(state: AISState, uniform_I: Tensor, below: float) -> tuple[AISState, Tensor]:
    """Resample the images whose effective sample size is below ``below`` · M.

    Returns the state and which images they were, bool [I]. Their chains share the mean weight
    afterwards, so log Z is unchanged.
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
    state: AISState,
    beta: float,
    acceptance_I: Tensor | None = None,
    resampled_I: Tensor | None = None,
) -> Row:
    """log Z = log mean w, D = Σ W d, R = -log Z - β D; d_ref cancels in R and is left out."""
    log_weight_IM, d_ref_I = state.log_weight_IM, state.d_ref_I
    weight_IM = torch.softmax(log_weight_IM, -1)
    excess_I = (weight_IM * (state.chain.d_IM - d_ref_I[:, None])).sum(-1)
    log_z_excess_I = resampling.log_mean_exp(log_weight_IM)
    return Row(
        temperature=state.temperature,
        beta=beta,
        log_z_I=log_z_excess_I - beta * d_ref_I,
        rate_I=-log_z_excess_I - beta * excess_I,
        distortion_I=d_ref_I + excess_I,
        ess_I=weight_IM.square().sum(-1).reciprocal(),
        acceptance_I=torch.full_like(d_ref_I, torch.nan) if acceptance_I is None else acceptance_I,
        resampled_I=torch.zeros_like(d_ref_I).bool() if resampled_I is None else resampled_I,
        nonfinite_I=state.nonfinite_I,
    )


def to_tensors(run: Run, state: AISState) -> dict[str, Tensor]:
    """The state as a flat dictionary of CPU tensors, with the fingerprint of its run."""
    tensors = {
        **state.chain._asdict(),
        "log_weight_IM": state.log_weight_IM,
        "d_ref_I": state.d_ref_I,
        "nonfinite_I": state.nonfinite_I,
        "temperature": torch.tensor(state.temperature),
        "fingerprint": _fingerprint(run),
    }
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def from_tensors(run: Run, tensors: dict[str, Tensor]) -> AISState:
    """Continue exactly where ``to_tensors`` stood.

    Raises:
        InputError: the tensors are of another run (tuning, seed, image ids, resampling, dtype).
    """
    x_IN = run.distortion.x_IN
    names = {
        *hmc.State._fields,
        "log_weight_IM",
        "d_ref_I",
        "nonfinite_I",
        "temperature",
        "fingerprint",
    }
    if set(tensors) != names or not torch.equal(tensors["fingerprint"].cpu(), _fingerprint(run)):
        raise InputError("the saved chains belong to another run (tuning, seed, images or dtype).")
    on_device = {name: tensor.to(x_IN.device) for name, tensor in tensors.items()}
    return AISState(
        chain=hmc.State(*(on_device[name] for name in hmc.State._fields)),
        log_weight_IM=on_device["log_weight_IM"],
        d_ref_I=on_device["d_ref_I"],
        temperature=int(tensors["temperature"]),
        nonfinite_I=on_device["nonfinite_I"],
    )


def _fingerprint(run: Run) -> Tensor:
    x_IN = run.distortion.x_IN
    text = repr(
        (run.tuning.hash, run.seed, run.image_ids, run.resample_below, str(x_IN.dtype))
    ).encode()
    return torch.tensor(list(hashlib.sha256(text).digest()), dtype=torch.uint8)
