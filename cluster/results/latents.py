"""Latents of runs compared with their prior, for `gencomp figure latent` and `curves`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from cluster.results import pictures
from cluster.runs import Run
from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.evaluation.kernel import KernelDistance
from gencomp.evaluation.latents import prior_samples
from gencomp.figures.latents import LatentSet, measure, null_spread

MOST_IMAGES = 2048  # all latents of all runs are in memory at once


class Compared(NamedTuple):
    """Latents of several runs on the same images, with the MMDs that chance alone would give."""

    sets: list[LatentSet]
    measured: list[KernelDistance]
    null: np.ndarray

    @property
    def chance(self) -> tuple[float, float]:
        """The central 95 % of the null."""
        low, high = np.quantile(self.null, [0.025, 0.975])
        return float(low), float(high)


def choose(runs: Sequence[Run], split: str, count: int | None) -> pictures.Images:
    """Evenly spaced images of a split; by default all, but at most `MOST_IMAGES`.

    Raises:
        InputError: fewer than two or too many images are asked for.
    """
    if count is not None and not 2 <= count <= MOST_IMAGES:
        raise InputError(f"--images is {count}, but an MMD takes 2 to {MOST_IMAGES} images")
    chosen = pictures.choose_images(runs, split, 2 if count is None else count)
    if count is None:
        most = min(len(chosen.split), MOST_IMAGES)
        chosen = pictures.choose_images(runs, split, most)
    return chosen


def compare(
    runs: Sequence[Run], names: Sequence[str], images: pictures.Images, seed: int
) -> Compared:
    """The latents of several runs, compared with their common prior.

    Raises:
        InputError: a run has no latents or no prior, or the priors differ.
    """
    sets: list[LatentSet] = []
    for run, name in zip(runs, names, strict=True):
        found = encoded(run, name, images, seed)
        sets.append(found)
        if _prior(found) != _prior(sets[0]):
            raise InputError(
                f"the priors of run {runs[0].path} and run {run.path} differ"
                f" ({_said(sets[0])} and {_said(found)})"
            )
    null = null_spread(
        len(images.rows),
        sets[0].variance,
        lambda draw, count: _samples(sets[0], seed, ("chance", draw), count),
    )
    return Compared(sets, [against_prior(one, seed) for one in sets], null)


def encoded(run: Run, name: str, images: pictures.Images, seed: int) -> LatentSet:
    """The latents of a run, with the variance of its prior."""
    z_BK, variance = pictures.latents(run, run.system(), images, seed)
    return LatentSet(name, z_BK.double().numpy(), variance)


def against_prior(found: LatentSet, seed: int) -> KernelDistance:
    """The MMD between latents and as many samples of their prior, the same ones for every run."""
    prior_NM = _samples(found, seed, ("prior",), len(found.z_NM))
    return measure(found.z_NM, prior_NM, found.variance)


def _samples(found: LatentSet, seed: int, key: tuple[str | int, ...], count: int) -> np.ndarray:
    """Samples of the prior of some latents, float64 [count, m]."""
    return prior_samples(Draws(seed, key, count), *_prior(found), torch.float64).numpy()


def _prior(found: LatentSet) -> tuple[int, float]:
    """The dimensions and the variance of the prior of some latents."""
    return found.z_NM.shape[1], found.variance


def _said(found: LatentSet) -> str:
    return "{} dimensions of variance {:g}".format(*_prior(found))
