"""What an evaluation is, written down once: weights, images, settings, seeds, and how images form
blocks.

    plan.json        this file; the same command finds it again, another plan is refused
    tuning.npz       what the pilot job froze: schedule and step sizes
    parts/           one Parquet file for each finished block of images
    chains/          the chains of blocks that are being measured
    progress/        one small JSON file per job
    jobs.json        which jobs were submitted where
    logs/            submitit's folder
    curve.parquet, curve.json   what `gencomp slurm collect` makes of the parts

A block is a few images whose chains move together. The last bits of a result depend on which images
share a block, so blocks belong to the plan; how many jobs share the blocks does not.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import gencomp
import shards
from cluster.files import write_bytes
from cluster.runs import Run, open_run
from gencomp.errors import InputError
from gencomp.rate_distortion.schedules import report_points

# Where things lie does not change what is measured.
_LOCATIONS = ("shards",)
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


class Plan(BaseModel):
    """An evaluation. Everything but where the shards lie is its identity."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    gencomp: str
    decoder: str
    data: str
    shards: str
    rows: tuple[int, ...]
    pilot_rows: tuple[int, ...]
    height: int
    width: int
    settings: Settings

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the identity, 32 hexadecimal digits."""
        text = json.dumps(self._identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

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

    def differences(self, other: Plan) -> list[str]:
        """What `other` would change, in words."""
        old, new = self._identity(), other._identity()
        return [
            f"{k} was {_short(old[k])}, would be {_short(new[k])}" for k in old if old[k] != new[k]
        ]

    def _identity(self) -> dict[str, Any]:
        values = self.model_dump(mode="json", exclude={*_LOCATIONS})
        return {**values.pop("settings"), **values}


@dataclass(frozen=True)
class Evaluation:
    """An evaluation directory with its plan."""

    path: Path
    plan: Plan

    @property
    def run(self) -> Run:
        return open_run(self.path.parent.parent)

    @property
    def tuning(self) -> Path:
        return self.path / "tuning.npz"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def part(self, block: int) -> Path:
        return self.path / "parts" / f"block-{block:05d}.parquet"

    def chains(self, block: int) -> Path:
        return self.path / "chains" / f"block-{block:05d}.safetensors"

    def progress(self, job: str) -> Path:
        return self.path / "progress" / f"{job}.json"

    def missing(self) -> list[int]:
        """Blocks without a part."""
        return [block for block in range(len(self.plan.blocks)) if not self.part(block).exists()]


def settings(**values: Any) -> Settings:
    """Checked settings.

    Raises:
        InputError: one sentence about the first value out of range.
    """
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "value_error":
            raise InputError(str(first["ctx"]["error"])) from None
        option = str(first["loc"][0]).replace("_", "-")
        message = first["msg"][0].lower() + first["msg"][1:]
        raise InputError(f"--{option} is {first['input']!r}, but {message}") from None


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
    shard_set = shards.open_set(recipe.data.shards)
    measured = shard_set.split(chosen.split)
    rows = spaced(len(measured), chosen.images, chosen.split)
    pilot_images = min(chosen.pilot_images, chosen.images)
    height, width = measured.image(rows[0]).shape[:2]
    return Plan(
        gencomp=gencomp.__version__,
        decoder=checkpoint.networks_hash(),
        data=shard_set.index_hash,
        shards=str(shard_set.path.resolve()),
        rows=rows,
        pilot_rows=tuple(rows[i] for i in spaced(len(rows), pilot_images, chosen.split)),
        height=height,
        width=width,
        settings=chosen,
    )


def spaced(length: int, count: int, split: str) -> tuple[int, ...]:
    """`count` rows evenly spaced over a split: neighbours may be crops of one photograph."""
    if count > length:
        raise InputError(f"split {split!r} has {length} images, fewer than the {count} asked for")
    return tuple(i * length // count for i in range(count))


def find(run: Run, name: str, plan: Plan) -> Evaluation:
    """The evaluation of that name, whether it is there already or not; writes nothing.

    Raises:
        InputError: the directory holds another plan, or something else.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise InputError(f"--name {name!r} must be one plain directory name")
    path = (run.path / "evaluations" / name).resolve()
    if (path / "plan.json").exists():
        there = open_evaluation(path)
        if differences := there.plan.differences(plan):
            raise InputError(
                f"{path} holds another evaluation: {'; '.join(differences)} (choose another "
                "--name, or the settings that it has)"
            )
    elif path.exists() and any(entry.name != "logs" for entry in path.iterdir()):
        raise InputError(f"{path} exists, is not empty and is no evaluation; choose another --name")
    return Evaluation(path, plan)


def enter(run: Run, name: str, plan: Plan) -> Evaluation:
    """Create the directory of an evaluation, or find it again.

    Raises:
        InputError: as `find`; nothing is changed.
    """
    evaluation = find(run, name, plan)
    # submitit's folder must be there before a job can start: Slurm opens the logs itself.
    evaluation.logs.mkdir(parents=True, exist_ok=True)
    text = plan.model_dump_json(indent=1) + "\n"
    if not (evaluation.path / "plan.json").exists():
        write_bytes(evaluation.path / "plan.json", text.encode())
    return evaluation


def open_evaluation(path: str | Path) -> Evaluation:
    """An evaluation that exists.

    Raises:
        InputError: there is none in that directory, or its plan cannot be read.
    """
    directory = Path(path).resolve()
    try:
        text = (directory / "plan.json").read_text()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{path} is not an evaluation directory (it has no plan.json); "
            "`gencomp slurm ais` makes one"
        ) from None
    try:
        return Evaluation(directory, Plan.model_validate_json(text))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{directory / 'plan.json'} cannot be read: {where}: {first['msg']}"
        ) from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
