"""Latents of runs held against their prior, for `gencomp figure latent` and `curves`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from cluster.results import pictures as inputs
from cluster.runs import Run
from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.figures.latents import LatentSet, Mmd, measure, null_spread
from gencomp.systems.dplc.base import ReconstructingSystem
from gencomp.systems.dplc.parts import Prior

MOST_IMAGES = 2048  # kernels between all pairs are held at once


class Compared(NamedTuple):
    """Latents of several runs on the same images, and what chance gives at their number."""

    sets: list[LatentSet]
    measured: list[Mmd]
    null: np.ndarray

    @property
    def chance(self) -> tuple[float, float]:
        """The central 95 % of the null."""
        low, high = np.quantile(self.null, [0.025, 0.975])
        return float(low), float(high)


def choose(runs: Sequence[Run], split: str, count: int | None) -> inputs.Images:
    """Evenly spaced images; by default all, but `MOST_IMAGES` at most.

    Raises:
        InputError: fewer than two or too many are asked for.
    """
    if count is not None and not 2 <= count <= MOST_IMAGES:
        raise InputError(f"--images is {count}, but an MMD takes 2 to {MOST_IMAGES} images")
    chosen = inputs.choose_images(runs, split, 2 if count is None else count)
    if count is None:
        most = min(len(chosen.split), MOST_IMAGES)
        chosen = inputs.choose_images(runs, split, most)
    return chosen


def compare(
    runs: Sequence[Run], names: Sequence[str], images: inputs.Images, seed: int
) -> Compared:
    """
    Raises:
        InputError: a run without latents or prior, or priors that differ.
    """
    sets, measured, priors = [], [], []
    for run, name in zip(runs, names, strict=True):
        found, prior = encoded(run, name, images, seed)
        sets.append(found)
        priors.append(prior)
        if prior != priors[0]:
            raise InputError(
                f"the priors of run {runs[0].path} and run {run.path} differ"
                f" ({_said(priors[0])} and {_said(prior)})"
            )
        measured.append(against_prior(found, prior, seed))
    size, prior = len(images.rows), priors[0]
    null = null_spread(
        size,
        prior.latent_dim,
        prior.variance,
        lambda draw, count: _samples(prior, seed, ("chance", draw), count),
    )
    return Compared(sets, measured, null)


def encoded(run: Run, name: str, images: inputs.Images, seed: int) -> tuple[LatentSet, Prior]:
    """Latents of a run, with its prior."""
    system = run.system()
    z_NM = inputs.latents(run, system, images, seed)
    assert isinstance(system, ReconstructingSystem) and system.prior is not None
    return LatentSet(name, z_NM, system.prior.variance), system.prior


def against_prior(found: LatentSet, prior: Prior, seed: int) -> Mmd:
    """Its MMD to as many samples of the prior, the same for every run."""
    return measure(found.z_NM, _samples(prior, seed, ("prior",), len(found.z_NM)), prior.variance)


def _samples(prior: Prior, seed: int, key: tuple[str | int, ...], count: int) -> np.ndarray:
    """[count, m]"""
    draws = Draws(seed, key, count)
    return prior.sample(draws, torch.float64).flatten(1).numpy()


def _said(prior: Prior) -> str:
    return f"{prior.latent_dim} dimensions of variance {prior.variance:g}"
