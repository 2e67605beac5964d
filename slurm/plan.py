"""What an evaluation is, written down once: weights, images, settings, seeds, and how images form
blocks.

    plan.json        this file; the same command finds it again, another plan is refused
    tuning.npz       what the pilot job froze: schedule and step sizes
    parts/           one Parquet file for each finished block of images
    chains/          the chains of blocks that are being measured
    jobs.json, progress/, logs/   see directory.py
    curve.parquet, curve.json   what `gencomp slurm collect` makes of the parts

A block is a few images whose chains move together. The last bits of a result depend on which images
share a block, so blocks belong to the plan; how many jobs share the blocks does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

import gencomp
import shards
from cluster import plans
from cluster.data import held_out_rows, stored
from cluster.plans import spaced
from cluster.runs import Run, open_run
from gencomp.errors import InputError
from gencomp.rate_distortion.schedules import report_points
from slurm.directory import JobDirectory

if TYPE_CHECKING:
    from slurm.ledger import Job

__all__ = ["Evaluation", "Plan", "Settings", "enter", "find", "make", "open_evaluation", "spaced"]

_LARGEST_SEED = 2**63 - 1
Seed = Annotated[int, Field(ge=0, le=_LARGEST_SEED)]


class Settings(BaseModel):
    """What the user chooses about the measurement."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    split: str = Field(description="split of the shard set to measure")
    images: int = Field(ge=1, description="how many, evenly spaced over the split")
    block: int = Field(ge=1, description="images whose chains move together")
    chains: int = Field(ge=4, description="chains per image")
    temperatures: int = Field(ge=2, description="inverse temperatures of the measuring schedule")
    points: int = Field(ge=1, description="of them reported")
    beta_max: float = Field(
        gt=0, description="last inverse temperature, of the summed squared error"
    )
    leapfrog: int = Field(ge=1, description="steps of a trajectory")
    seed: Seed = Field(description="of the measurement")
    tuning_seed: Seed = Field(description="of the pilot")
    pilot_images: int = Field(ge=1, description="images the pilot tunes on")
    pilot_temperatures: int = Field(ge=2, description="inverse temperatures of the pilot")
    threads: int = Field(
        ge=1, le=1024, description="threads of a job: their number shapes last bits"
    )
    device: Literal["cpu", "cuda"] = Field(description="where the decoder runs")

    @model_validator(mode="after")
    def _two_seeds(self) -> Settings:
        if self.seed == self.tuning_seed:
            raise ValueError("seed and tuning_seed must differ, or the curve is no bound")
        return self


class Plan(plans.Plan):
    """An evaluation of the rate-distortion curve."""

    FILE: ClassVar[str] = "plan.json"
    # Where things lie does not change what is measured.
    LOCATIONS: ClassVar[tuple[str, ...]] = ("shards",)
    COMMAND: ClassVar[str] = "gencomp slurm ais"

    format: Literal[1] = 1
    gencomp: str
    decoder: str
    data: str
    stored: dict[str, Any]
    shards: str
    rows: tuple[int, ...]
    pilot_rows: tuple[int, ...]
    height: int
    width: int
    settings: Settings

    @property
    def blocks(self) -> tuple[tuple[int, ...], ...]:
        """Rows of each block."""
        size = self.settings.block
        return tuple(self.rows[i : i + size] for i in range(0, len(self.rows), size))

    @property
    def reported(self) -> list[int]:
        """Temperature indices of the reported points."""
        return report_points(self.settings.temperatures, self.settings.points)

    @property
    def pixels(self) -> int:
        return self.height * self.width


@dataclass(frozen=True)
class Evaluation(JobDirectory):
    """An evaluation directory with its plan.

    A job's steps are temperatures, summed over its blocks.
    """

    KIND: ClassVar[str] = "ais"

    path: Path
    plan: Plan

    @property
    def hash(self) -> str:
        return self.plan.hash

    @property
    def threads(self) -> int:
        return self.plan.settings.threads

    @property
    def gpu(self) -> bool:
        return self.plan.settings.device == "cuda"

    @property
    def ready(self) -> bool:
        return self.tuning.exists()

    @property
    def block_sizes(self) -> list[int]:
        return [len(rows) for rows in self.plan.blocks]

    def steps(self, blocks: Sequence[int] | None) -> int:
        settings = self.plan.settings
        if blocks is None:
            return settings.pilot_temperatures
        return (settings.temperatures - 1) * len(blocks)

    def task(self, job: Job) -> Callable[[], None]:
        from slurm.jobs import Measure, Pilot

        if job.blocks is None:
            return Pilot(job.name, str(self.path))
        return Measure(job.name, str(self.path), job.blocks)

    @property
    def run(self) -> Run:
        return open_run(self.path.parent.parent)

    @property
    def tuning(self) -> Path:
        return self.path / "tuning.npz"

    def part(self, block: int) -> Path:
        return self.path / "parts" / f"block-{block:05d}.parquet"

    def chains(self, block: int) -> Path:
        return self.path / "chains" / f"block-{block:05d}.safetensors"

    def missing(self) -> list[int]:
        return [block for block in range(len(self.plan.blocks)) if not self.part(block).exists()]


def settings(**values: Any) -> Settings:
    """Checked settings.

    Raises:
        InputError: one sentence about the first value out of range.
    """
    return plans.checked(Settings, values)


def make(run: Run, chosen: Settings) -> Plan:
    """The plan of a finished run; reads one image, starts nothing.

    The pilot tunes on some of the measured images, with a seed of its own: training images, which
    the decoder fits better, would make it too bold.

    Raises:
        InputError: the run is not finished, has no decoder of latents, or there are too few images.
        ShardError: the shard set or a split is missing.
    """
    checkpoint = run.final_checkpoint()
    recipe = run.recipe()
    if run.system().latent_decoder() is None:
        raise InputError(
            f"run {run.path} ({recipe.system}/{recipe.stage}) has no decoder from a latent prior, "
            "so it has no rate-distortion curve of this kind"
        )
    location = recipe.evaluation_shards()
    shard_set = shards.open_set(location)
    measured = shard_set.split(chosen.split)
    rows = spaced(len(measured), chosen.images, chosen.split)
    pilot_images = min(chosen.pilot_images, chosen.images)
    height, width = held_out_rows(recipe, measured, rows[:1]).images.shape[1:3]
    return Plan(
        gencomp=gencomp.__version__,
        decoder=checkpoint.networks_hash(),
        data=shard_set.index_hash,
        stored=stored(shard_set.info),
        shards=plans.absolute(location),
        rows=rows,
        pilot_rows=tuple(rows[i] for i in spaced(len(rows), pilot_images, chosen.split)),
        height=height,
        width=width,
        settings=chosen,
    )


def find(run: Run, name: str, plan: Plan) -> Evaluation:
    """The evaluation of that name, whether it is there already or not; writes nothing.

    Raises:
        InputError: the directory holds another plan, or something else.
    """
    return Evaluation(plans.find(run, name, plan), plan)


def enter(run: Run, name: str, plan: Plan) -> Evaluation:
    """Create the directory of an evaluation, or find it again.

    Raises:
        InputError: as `find`; nothing is changed.
    """
    evaluation = find(run, name, plan)
    # submitit's folder must be there before a job can start: Slurm opens the logs itself.
    evaluation.logs.mkdir(parents=True, exist_ok=True)
    plans.enter(run, name, plan)
    return evaluation


def open_evaluation(path: str | Path) -> Evaluation:
    """An evaluation that exists.

    Raises:
        InputError: there is none in that directory, or its plan cannot be read.
    """
    directory = Path(path).resolve()
    return Evaluation(directory, Plan.read(directory))
