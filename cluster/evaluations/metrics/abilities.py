"""The abilities of a finished run, which decide the metrics that it can have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch

from cluster import data
from cluster.evaluations.metrics.settings import OF_FEATURES, OF_RECONSTRUCTIONS, Metric
from cluster.runs import Run
from gencomp.errors import InputError
from gencomp.evaluation.draws import ItemDraws
from gencomp.system import Batch, evaluation_mode
from shards.reading.reader import Split

_NO_PRIOR = "has no prior to draw from"
_NO_LATENTS = "has no latents with a prior to compare them with"


class Abilities(NamedTuple):
    """The abilities of a run.

    Attributes:
        run: the run in words, for messages.
        reconstructs: whether the run has an encoder.
        no_prior: the reason why the run cannot draw images from a prior; empty if it can.
        no_latents: the reason why the run has no latents that should follow a prior; empty if it
            has.
    """

    run: str
    reconstructs: bool
    no_prior: str
    no_latents: str

    @property
    def has_prior(self) -> bool:
        return not self.no_prior

    @classmethod
    def of_files(cls, run: Run, split: Split) -> Self:
        """The abilities of a run whose reconstructions go through files.

        Raises:
            InputError: the run has no codec.
        """
        recipe, system = run.recipe(), run.system()
        said = f"run {run.path} ({recipe.system}/{recipe.stage})"
        if system.codec() is None:
            raise InputError(f"{said} has no codec: no --reconstructions files")
        batch, draws = _trial_batch(run, split)
        no_prior = ""
        try:
            with evaluation_mode(system.networks):
                if system.sample(draws, like=batch) is None:
                    no_prior = _NO_PRIOR
        except InputError as error:  # a codec may take images of sizes that networks do not
            no_prior = f"cannot draw such images from its prior ({error})"
        return cls(said, True, no_prior, "shows no latents with --reconstructions files")

    @classmethod
    def of(cls, run: Run, split: Split) -> Self:
        """The abilities of a run, found by trying two images of a split, or one if sizes differ."""
        recipe, system = run.recipe(), run.system()
        batch, draws = _trial_batch(run, split)
        with evaluation_mode(system.networks):
            return cls(
                f"run {run.path} ({recipe.system}/{recipe.stage})",
                system.reconstruct(batch, draws) is not None,
                "" if system.sample(draws, like=batch) is not None else _NO_PRIOR,
                "" if system.latents(batch, draws) is not None else _NO_LATENTS,
            )

    def usual_metrics(
        self, features: bool, *, lpips: bool, dists: bool = False
    ) -> tuple[Metric, ...]:
        """The metrics that are measured if none are named.

        Args:
            features: whether a feature network is given.
            lpips, dists: whether these networks are given.
        """
        able: Sequence[tuple[bool, tuple[Metric, ...]]] = (
            (self.reconstructs, ("mse", "psnr", "ms_ssim")),
            (features, OF_FEATURES),
            (self.reconstructs and lpips, ("lpips",)),
            (self.reconstructs and dists, ("dists",)),
        )
        return tuple(metric for can, those in able if can for metric in those)

    def require(self, metrics: Sequence[Metric], samples: int | None) -> None:
        """Raise `InputError` for a metric, or a number of samples, that the run cannot have."""
        for metric in metrics:
            if metric in OF_RECONSTRUCTIONS and not self.reconstructs:
                raise InputError(f"{self.run} has no encoder and reconstructs nothing: no {metric}")
            if metric == "rate0" and not self.has_prior:
                raise InputError(f"{self.run} {self.no_prior}: no rate0")
            if metric == "mmd" and self.no_latents:
                raise InputError(f"{self.run} {self.no_latents}: no mmd")
        if samples and not self.samples(metrics, samples):
            compares = any(metric in OF_FEATURES for metric in metrics)
            why = self.no_prior if compares else "is asked for neither fid nor kid"
            raise InputError(f"--samples is {samples}, but {self.run} {why}")

    def samples(self, metrics: Sequence[Metric], images: int) -> int:
        """The default number of samples: as many as images if they are compared, otherwise none."""
        compares = any(metric in OF_FEATURES for metric in metrics)
        return images if self.has_prior and compares else 0


def _trial_batch(run: Run, split: Split) -> tuple[Batch, ItemDraws]:
    """Two images of a split, or one if sizes differ, with draws for them."""
    recipe = run.recipe()
    rows = data.held_out_order(recipe, split, 2, min(2, len(split)))[0].tolist()
    batch = data.to_batch(data.held_out_rows(recipe, split, rows), torch.device("cpu"))
    return batch, ItemDraws.of(0, ("abilities",), rows)
