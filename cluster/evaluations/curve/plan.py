"""The plan of a curve, written once: its decoder, images, settings, seeds and blocks.

    plan.json        the plan; the same command finds it again, another plan is refused
    tuning.npz       what the pilot job froze: schedule, metric and step sizes
    parts/           one Parquet file for each finished block
    chains/          the chains of the pilot and of blocks that are being worked on
    jobs.json, progress/, logs/   the files of the jobs that share the blocks, if there are any
    curve.parquet, curve.json   the result that is merged from the parts

A block is a unit of work whose chains move together: a few images to measure or to certify, or a
few simulated images whose chains go forward or backward to one inverse temperature. The last bits
of a result depend on which images share a block, so the blocks belong to the plan. They do not
depend on the number of jobs that share the blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

import gencomp
import shards
from cluster.checkpoints.store import LAST
from cluster.data import open_evaluation_set, stored
from cluster.evaluations import evaluation, plans
from cluster.evaluations.curve.settings import Settings
from cluster.evaluations.decoders import (
    OfModel,
    OfRun,
    open_decoder,
    read_images,
    stated_variance,
    value_range,
)
from cluster.evaluations.plans import spaced
from cluster.runs import Run
from gencomp.errors import InputError
from gencomp.rate_distortion.certificate import TRANSITIONS
from gencomp.rate_distortion.schedules import report_points
from gencomp.rate_distortion.tuning import Tuning
from shards.reading.reader import ShardSet

Kind = Literal["measure", "forward", "backward", "certify", "repeat"]


class Block(NamedTuple):
    """A unit of work.

    Attributes:
        kind: measure for images of the split; forward or backward for simulated images, whose log Z
            is bounded from below or from above; certify for images of the split, whose log Z is
            bounded from below by chains from modes; repeat for images of the split that are
            measured with another seed.
        items: the rows of the images in the split, or the numbers of the simulated images.
        beta: the inverse temperature of a certificate, as it was asked for.
    """

    kind: Kind
    items: tuple[int, ...]
    beta: float = math.nan


class Plan(plans.Plan):
    """The plan of a rate-distortion curve."""

    FILE: ClassVar[str] = "plan.json"
    # The places of files do not change what is measured.
    LOCATIONS: ClassVar[tuple[str, ...]] = ("shards", "features_file")
    DERIVED: ClassVar[tuple[str, ...]] = ("value_range",)
    COMMAND: ClassVar[str] = "gencomp slurm ais"

    format: Literal[2] = 2
    gencomp: str
    subject: Annotated[OfRun | OfModel, Field(discriminator="kind")]
    decoder: str
    prior: str
    data: str
    stored: dict[str, Any]
    shards: str
    features_file: str | None
    rows: tuple[int, ...]
    pilot_rows: tuple[int, ...]
    height: int
    width: int
    values: int
    # Black and white on the decoder's scale; None in plans of older versions.
    value_range: tuple[float, float] | None = None
    settings: Settings

    def identity(self) -> dict[str, Any]:
        """The identity. It holds the subject's name alone, as its weights and prior identify it."""
        return {**super().identity(), "subject": getattr(self.subject, "reference", "a run")}

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """All units of work. Those that measure images of the split come first."""
        size = self.settings.block
        measured = [Block("measure", rows) for rows in _cut(self.rows, size)]
        simulated: list[Block] = []
        for beta in self.settings.bdmc_betas:
            for numbers in _cut(range(self.settings.bdmc_images), size):
                simulated += [Block("forward", numbers, beta), Block("backward", numbers, beta)]
        certified: list[Block] = []
        if self.settings.certify:
            certified = [Block("repeat", one.items) for one in measured]
            for beta in self.settings.certify_betas:
                certified += [Block("certify", one.items, beta) for one in measured]
        return tuple(measured + simulated + certified)

    @cached_property
    def reported(self) -> list[int]:
        """The temperature indices of the reported points."""
        return report_points(self.settings.temperatures, self.settings.points)

    @property
    def pixels(self) -> int:
        return self.height * self.width


@dataclass(frozen=True)
class Evaluation(evaluation.Evaluation):
    """The directory of a curve with its plan. A step of a block is one transition."""

    PLAN: ClassVar[type[plans.Plan]] = Plan
    RESULT: ClassVar[str] = "curve.json"
    PART: ClassVar[str] = "block-{:05d}.parquet"

    plan: Plan

    @property
    def subject(self) -> Run | OfModel:
        """The run, or the user's own model, whose decoder is measured."""
        found = self.plan.subject
        return found if isinstance(found, OfModel) else self.run

    @property
    def subject_name(self) -> str:
        found = self.subject
        return f"model {found.reference}" if isinstance(found, OfModel) else f"run {found.path}"

    def block_steps(self, block: int) -> int:
        """The number of transitions of a block.

        Until the pilot has found the schedule, simulated paths count as if they went through all
        of it. The search for modes counts as one step.
        """
        found = self.plan.blocks[block]
        if found.kind == "certify":
            return 1 + TRANSITIONS
        if found.kind in ("forward", "backward") and self.tuning.exists():
            betas = _schedule(self.tuning, self.tuning.stat().st_mtime_ns)
            return nearest(betas, found.beta)
        return self.plan.settings.temperatures - 1

    @property
    def pilot_steps(self) -> int:
        """The number of transitions of the pilot's two walks."""
        chosen = self.plan.settings
        second = min(chosen.pilot_temperatures, chosen.temperatures)
        return chosen.pilot_temperatures - 1 + second - 1

    @property
    def tuning(self) -> Path:
        return self.path / "tuning.npz"

    @property
    def pilot_chains(self) -> Path:
        return self.path / "chains" / "pilot.safetensors"

    def chains(self, block: int) -> Path:
        return self.path / "chains" / f"block-{block:05d}.safetensors"


def make(run: Run, chosen: Settings, features: Path | None = None) -> Plan:
    """The plan of a finished run's curve. One image is read, and nothing is started.

    The pilot tunes on some of the measured images, with a seed of its own. Training images, which
    the decoder fits better, would make its tuning too bold.

    Args:
        run: the finished run.
        chosen: the settings.
        features: the file of the feature network, which has the hash in the settings.

    Raises:
        InputError: the run is not finished, has no decoder of latents, or there are too few images.
        ShardError: the shard set or a split is missing.
    """
    return _make(run, open_evaluation_set(run), chosen, features)


def make_for_model(
    model: OfModel, location: str, chosen: Settings, features: Path | None = None
) -> Plan:
    """The plan of a curve of the user's own model on a shard set, made as `make` does.

    Raises:
        InputError: the model cannot be opened or does not fit the images, or there are too few
            images.
        ShardError: the shard set or a split is missing.
    """
    return _make(model, shards.open_set(location), chosen, features)


def _make(
    subject: Run | OfModel, shard_set: ShardSet, chosen: Settings, features: Path | None
) -> Plan:
    decoder, identity = open_decoder(subject)
    if chosen.distortion == "gaussian_likelihood":
        stated_variance(decoder)
    measured = shard_set.split(chosen.split)
    rows = spaced(len(measured), chosen.images, chosen.split)
    image_BCHW = read_images(subject, measured, rows[:1])
    height, width = image_BCHW.shape[2:]
    if (values := decoder.target(image_BCHW).shape[1]) != decoder.values:
        raise InputError(
            f"the decoder gives {decoder.values} values, but the {height}×{width} images of "
            f"{shard_set.where} have {values} on its scale"
        )
    pilot_images = min(chosen.pilot_images, chosen.images)
    return Plan(
        checkpoint=subject.checkpoint if isinstance(subject, Run) else LAST,
        gencomp=gencomp.__version__,
        subject=subject if isinstance(subject, OfModel) else OfRun(),
        decoder=identity,
        prior=decoder.prior.identity,
        data=shard_set.index_hash,
        stored=stored(shard_set.info),
        shards=plans.absolute(str(shard_set.path)),
        features_file=None if features is None else str(features.resolve()),
        rows=rows,
        pilot_rows=tuple(rows[i] for i in spaced(len(rows), pilot_images, chosen.split)),
        height=height,
        width=width,
        values=decoder.values,
        value_range=value_range(decoder, height, width),
        settings=chosen,
    )


def nearest(betas: np.ndarray, beta: float) -> int:
    """The index of the schedule's temperature nearest to a beta, on a logarithmic scale."""
    return 1 + int(np.abs(np.log(betas[1:] / beta)).argmin())


def nearest_reported(betas: np.ndarray, reported: Sequence[int], beta: float) -> int:
    """The index of the reported temperature nearest to a beta, on a logarithmic scale."""
    return reported[int(np.abs(np.log(betas[list(reported)] / beta)).argmin())]


@lru_cache(maxsize=4)
def _schedule(tuning: Path, changed: int) -> np.ndarray:
    """The betas of a tuning, read once for as long as its file is unchanged."""
    return Tuning.load(tuning).betas


def _cut(items: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    """The items in consecutive groups of `size`."""
    for start in range(0, len(items), size):
        yield tuple(items[start : start + size])
