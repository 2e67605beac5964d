"""A sweep file: a base recipe, a space over dotted keys, an objective, a scheduler, a budget."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from gencomp import recipes
from gencomp.errors import InputError
from gencomp.recipes.schema import Section

_Number = Annotated[float, Field(allow_inf_nan=False)]


class Grid(Section):
    grid: tuple[Any, ...] = Field(min_length=1, description="every one of these values")


class Uniform(Section):
    uniform: tuple[_Number, _Number] = Field(description="low, high")

    @model_validator(mode="after")
    def _increasing(self) -> Uniform:
        if not self.uniform[0] < self.uniform[1]:
            raise ValueError("uniform needs low < high")
        return self


class LogUniform(Section):
    loguniform: tuple[_Number, _Number] = Field(description="low, high; both positive")

    @model_validator(mode="after")
    def _positive(self) -> LogUniform:
        if not 0 < self.loguniform[0] < self.loguniform[1]:
            raise ValueError("loguniform needs 0 < low < high")
        return self


def _kind(entry: Any) -> str | None:
    """Which entry of a space a mapping (or a model, when it is written) is meant to be."""
    keys = entry if isinstance(entry, Mapping) else getattr(type(entry), "model_fields", ())
    return next((kind for kind in ("grid", "uniform", "loguniform") if kind in keys), None)


Entry = Annotated[
    Annotated[Grid, Tag("grid")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("loguniform")],
    Discriminator(
        _kind,
        custom_error_type="entry",
        custom_error_message=(
            "it needs one of grid: [...], uniform: [low, high], loguniform: [low, high]"
        ),
    ),
]


class Objective(Section):
    """What a good trial is: the least `minimise` among those that keep the constraints.

    The score is minimise + penalty·Σ max(0, metric − bound), so a scheduler can rank any two
    trials.
    """

    minimise: str = Field("mse", description="metric of the evaluation")
    subject_to: dict[str, float] = Field({}, description="metric -> greatest allowed value")
    penalty: float = Field(1.0, gt=0, description="weight of what exceeds a bound")

    def require_known(self, metrics: Mapping[str, Any]) -> None:
        """Raise `InputError` when the evaluation does not give a metric of the objective."""
        for name in (self.minimise, *self.subject_to):
            if name not in metrics:
                raise InputError(
                    f"the objective names the metric {name}; known are {', '.join(metrics)}"
                )

    def score(self, metrics: Mapping[str, float | None]) -> float:
        """Score of an evaluation, infinite where a metric is missing or not finite."""
        names = (self.minimise, *self.subject_to)
        found = {name: value for name in names if (value := metrics.get(name)) is not None}
        if len(found) < len(set(names)) or not all(map(math.isfinite, found.values())):
            return math.inf
        excess = sum(max(0.0, found[name] - bound) for name, bound in self.subject_to.items())
        return float(found[self.minimise] + self.penalty * excess)


class Asha(Section):
    """Asynchronous successive halving: at steps grace·reduction^k, only the best go on."""

    grace: int = Field(ge=1, description="steps before a trial may be stopped")
    reduction: float = Field(2, gt=1, description="one in this many goes on at each rung")


class Sweep(Section):
    base: str = Field(description="recipe that every trial starts from")
    overrides: dict[str, Any] = Field({}, description="dotted recipe keys set in every trial")
    space: dict[str, Entry] = Field(min_length=1)
    samples: int = Field(1, ge=1, description="random draws per point of the grids")
    seed: int = Field(0, ge=0, description="seed of the random draws")
    objective: Objective = Objective()
    group_by: str | None = Field(None, description="key of the space within which trials compete")
    scheduler: Asha | None = Field(None, description="early stopping; none when left out")
    concurrent: int | None = Field(None, ge=1, description="trials at once; all CPUs when left out")
    max_failures: int = Field(1, ge=0, description="how often a trial that died is started again")

    @model_validator(mode="after")
    def _group_is_in_space(self) -> Sweep:
        if self.group_by is not None and self.group_by not in self.space:
            raise ValueError(
                f"group_by is {self.group_by}, but the space has {', '.join(self.space)}"
            )
        return self


def load(source: str | Path, overrides: Mapping[str, Any]) -> Sweep:
    """Read a sweep file, or one that ships with gencomp by its name.

    Args:
        source: path, or name of a file in this package.
        overrides: dotted recipe keys that the caller sets in every trial.

    Raises:
        InputError: no such file or a wrong value, in one sentence.
    """
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        path = Path(__file__).with_name(f"{source}.yaml")
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in Path(__file__).parent.glob("*.yaml")))
        raise InputError(f"sweep {source} does not exist; shipped sweeps are {shipped}")
    raw = recipes.read(path)
    try:
        sweep = Sweep.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"sweep {source}: {recipes.sentence(error, Sweep)}") from None
    return sweep.model_copy(update={"overrides": {**sweep.overrides, **overrides}})


def points(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Every point of the space: the product of the grids, times `samples` draws of the rest."""
    grids = {key: entry.grid for key, entry in sweep.space.items() if isinstance(entry, Grid)}
    random = {key: entry for key, entry in sweep.space.items() if not isinstance(entry, Grid)}
    generator = np.random.Generator(np.random.Philox(sweep.seed))
    for combination in itertools.product(*grids.values()):
        for _ in range(sweep.samples if random else 1):
            drawn = {key: _draw(entry, generator) for key, entry in random.items()}
            point = {**dict(zip(grids, combination, strict=True)), **drawn}
            yield {key: point[key] for key in sweep.space}


def _draw(entry: Uniform | LogUniform, generator: np.random.Generator) -> float:
    if isinstance(entry, Uniform):
        return float(generator.uniform(*entry.uniform))
    low, high = map(math.log, entry.loguniform)
    return float(math.exp(generator.uniform(low, high)))


def dump(sweep: Sweep) -> str:
    return yaml.safe_dump(sweep.model_dump(mode="json"), sort_keys=False)


Status = Literal["pending", "finished", "stopped", "failed"]
