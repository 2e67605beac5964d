"""Small DPLC systems, batches and steps, as several test files use them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from gencomp import recipes
from gencomp.draws import Draws
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Batch, Phase, PhaseLoss, Progress, System
from gencomp.systems import build_system
from gencomp.systems.common import calibration

START = Progress(step=0, samples=0, epoch_length=64)
GENERATORS = ("wae", "wgan_gp", "wasserstein_pp")
BASELINES = ("cae", "gc")
_GENERATOR = {"networks.width": 2, "networks.latent_dim": 8}
_CODE = {"networks.width": 2, "networks.code_channels": 2, "networks.residual_blocks": 1}
SIZES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(GENERATORS, _GENERATOR),
    **dict.fromkeys(BASELINES, _GENERATOR | _CODE),
    "codec": _CODE,
}
# Dz in place of the MMD.
ADVERSARIAL = {
    "loss.mmd_weight": 0,
    "latent_discriminator.weight": 10,
    "latent_discriminator.width": 16,
}


def recipe(stage: str, **overrides: Any) -> BaseRecipe:
    """The narrow recipe of a stage at the least widths."""
    return recipes.load(f"dplc_{stage}_photos", SIZES[stage] | overrides)


def made(stage: str, **overrides: Any) -> System:
    """A system with the weights of its start; the generator of a codec is a WAE's."""
    torch.manual_seed(0)
    if stage != "codec":
        return build_system(recipe(stage, **overrides), {})
    parent = made("wae")
    with mock.patch.object(calibration, "CALIBRATION_SAMPLES", 64):
        parent.finalise(supply())
    system = build_system(recipe(stage, **overrides), {"generator": recipe("wae")})
    system.initialise({"generator": parent.networks.state_dict()}, supply())
    return system


def finalised(system: System, samples: int = 16) -> System:
    """The system after its last step: its batch norms have seen their inputs."""
    with mock.patch.object(calibration, "CALIBRATION_SAMPLES", samples):
        system.finalise(supply())
    return system


def batch(n: int = 8, seed: int = 0) -> Batch:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 3, 64, 64), dtype=np.uint8)
    index = torch.arange(n)
    return Batch(torch.from_numpy(pixels), index, index, -torch.ones(n, dtype=torch.int64))


def draws(step: int = 0, n: int = 8) -> Draws:
    return Draws(1, ("train", step, 0), n)


def supply() -> Iterator[tuple[Batch, Draws]]:
    for i in range(10**6):
        yield batch(seed=i), Draws(1, ("finalise", i), 8)


def loss_of(phase: Phase, number: int = 0) -> PhaseLoss:
    """A phase's loss with gradients in place, as the loop gets it."""
    phase.take_over()
    phase.zero_grad(set_to_none=True)
    found = phase(batch(seed=number), draws(number), START)
    found.loss.backward()
    return found


def step(system: System, number: int = 0, phases: tuple[str, ...] = ()) -> Mapping[str, Tensor]:
    """One update of each phase (or of those named) with new optimizers; its terms."""
    terms: dict[str, Tensor] = {}
    for name, phase in system.phases.items():
        if phases and name not in phases:
            continue
        optimizer = system.optimizer(name)
        found = loss_of(phase, number)
        optimizer.step()
        terms |= {f"{name}/loss": found.loss.detach()}
        terms |= {f"{name}/{term}": value for term, value in found.terms.items()}
    return terms


def state(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def states(system: System) -> dict[str, dict[str, Tensor]]:
    return {name: state(network) for name, network in system.networks.items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def gradients(network: nn.Module) -> list[Tensor]:
    """Gradients of the parameters that have one."""
    return [p.grad for p in network.parameters() if p.grad is not None]
