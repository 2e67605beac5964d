"""The plan of a curve of trained encoders, for comparison: one restartable job in a directory.

    baseline.json      the plan: a run, images, betas and how the encoders are trained
    chains/            the encoder as it is after the betas that are done
    variational.json, variational.parquet   the result, on the same axes as curve.json

See `gencomp.rate_distortion.variational`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import gencomp
from cluster import data
from cluster.evaluations import evaluation, plans
from cluster.evaluations.decoders import open_decoder, read_images, stated_variance, value_range
from cluster.evaluations.encoders.settings import Settings
from cluster.evaluations.plans import spaced
from cluster.runs import Run
from gencomp.errors import InputError
from gencomp.rate_distortion.priors import Gaussian
from gencomp.validation import checked


class Block(NamedTuple):
    """The unit of work: the measured rows of the split."""

    items: tuple[int, ...]


class Plan(plans.Plan):
    """The plan of a curve of encoders that are trained for a finished run's decoder."""

    FILE: ClassVar[str] = "baseline.json"
    LOCATIONS: ClassVar[tuple[str, ...]] = ("shards",)
    DERIVED: ClassVar[tuple[str, ...]] = ("value_range",)
    COMMAND: ClassVar[str] = "gencomp slurm variational"

    format: Literal[1] = 1
    gencomp: str
    decoder: str
    prior: str
    data: str
    training_data: str
    stored: dict[str, Any]
    shards: str
    rows: tuple[int, ...]
    height: int
    width: int
    values: int
    # Black and white on the decoder's scale; None in plans of older versions.
    value_range: tuple[float, float] | None = None
    settings: Settings

    @property
    def blocks(self) -> list[Block]:
        """The one block of all measured images."""
        return [Block(self.rows)]

    @property
    def pixels(self) -> int:
        return self.height * self.width


@dataclass(frozen=True)
class Evaluation(evaluation.Evaluation):
    """The directory of trained encoders with its plan. Its one block takes a step for each beta."""

    PLAN: ClassVar[type[plans.Plan]] = Plan
    RESULT: ClassVar[str] = "variational.json"

    plan: Plan

    @property
    def chains(self) -> Path:
        return self.path / "chains" / "encoder.safetensors"

    def missing(self) -> list[int]:
        return [] if self.result.exists() else [0]

    def block_steps(self, block: int) -> int:
        return len(self.plan.settings.betas)


def make(run: Run, *, training_images: int | None, **chosen: Any) -> Plan:
    """The plan for a finished run. One image is read, and nothing is started.

    Args:
        run: the finished run.
        training_images: the number of training images; by default the whole training split.
        chosen: the other fields of `Settings`.

    Raises:
        InputError: the run is not finished, has no decoder of latents with a Gaussian prior, or a
            setting is out of range.
        ShardError: a shard set or a split is missing.
    """
    decoder, identity = open_decoder(run)
    if not isinstance(decoder.prior, Gaussian):
        raise InputError(
            f"run {run.path} has the prior {decoder.prior.identity}, but encoders are trained for "
            "Gaussian ones"
        )
    recipe = run.recipe()
    shard_set = data.open_evaluation_set(run)
    training, _ = data.open_training(recipe)
    count = len(training) if training_images is None else training_images
    settings = checked(Settings, {**chosen, "training_images": count})
    spaced(len(training), settings.training_images, recipe.data.split)
    if settings.distortion == "gaussian_likelihood":
        stated_variance(decoder)
    measured = shard_set.split(settings.split)
    rows = spaced(len(measured), settings.images, settings.split)
    height, width = read_images(run, measured, rows[:1]).shape[2:]
    return Plan(
        checkpoint=run.checkpoint,
        gencomp=gencomp.__version__,
        decoder=identity,
        prior=decoder.prior.identity,
        data=shard_set.index_hash,
        training_data=training.index_hash,
        stored=data.stored(shard_set.info),
        shards=plans.absolute(str(shard_set.path)),
        rows=rows,
        height=height,
        width=width,
        values=decoder.values,
        value_range=value_range(decoder, height, width),
        settings=settings,
    )
