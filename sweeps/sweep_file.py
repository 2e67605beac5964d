"""A sweep file: a base recipe, a space over dotted keys, an objective, a scheduler, a budget."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from gencomp import recipes, yaml_text
from gencomp.errors import InputError
from gencomp.recipes import shipped
from gencomp.recipes.schema import RECORD_FIELDS, Section
from gencomp.validation import sentence

_RECORD = {f"training.{field}" for field in RECORD_FIELDS}
_Number = Annotated[float, Field(allow_inf_nan=False)]


class Grid(Section):
    """An entry of the space that takes each of some values."""

    grid: tuple[Any, ...] = Field(min_length=1, description="the values, each of which is tried")


class Uniform(Section):
    """An entry of the space whose values are drawn evenly between two bounds."""

    uniform: tuple[_Number, _Number] = Field(description="low, high")

    @model_validator(mode="after")
    def _increasing(self) -> Uniform:
        if not self.uniform[0] < self.uniform[1]:
            raise ValueError("uniform needs low < high")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        return self.uniform


class LogUniform(Section):
    """An entry of the space whose values have logarithms drawn evenly between two bounds."""

    loguniform: tuple[_Number, _Number] = Field(description="low, high; both positive")

    @model_validator(mode="after")
    def _positive(self) -> LogUniform:
        if not 0 < self.loguniform[0] < self.loguniform[1]:
            raise ValueError("loguniform needs 0 < low < high")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        return self.loguniform


def _kind(entry: Any) -> str | None:
    """The kind of entry that a mapping (or a model, when it is written) is meant to be."""
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
    """What a good trial is: the metric `minimise` is small and the constraints are kept.

    The score is minimise + penalty·Σ max(0, metric − bound), so a scheduler can rank any two
    trials. Metrics in `against` are to be small as well; the best trials are then the Pareto front.
    """

    minimise: str = Field("mse", description="metric of the evaluation to be small")
    against: tuple[str, ...] = Field((), description="metrics to be small as well")
    subject_to: dict[str, float] = Field({}, description="metric -> greatest allowed value")
    penalty: float = Field(1.0, gt=0, description="weight of what exceeds a bound")

    @model_validator(mode="after")
    def _each_once(self) -> Objective:
        if len({self.minimise, *self.against}) < 1 + len(self.against):
            raise ValueError("minimise and against name a metric twice")
        return self

    @property
    def minimised(self) -> tuple[str, ...]:
        return (self.minimise, *self.against)

    def require_known(self, metrics: Mapping[str, Any]) -> None:
        """Raise `InputError` when the evaluation does not give a metric of the objective."""
        for name in self._names:
            if name not in metrics:
                raise InputError(
                    f"the objective names the metric {name}; known are {', '.join(metrics)}"
                )

    def score(self, metrics: Mapping[str, float | None]) -> float:
        """The score of an evaluation, which is infinite where a metric is missing or not finite."""
        return self.values(metrics)[0]

    def values(self, metrics: Mapping[str, float | None]) -> tuple[float, ...]:
        """The score, and then for each metric in `against` the same with that metric."""
        found = self._found(metrics)
        if found is None:
            return (math.inf,) * len(self.minimised)
        return tuple(found[name] + self.penalty * self._excess(found) for name in self.minimised)

    def feasible(self, metrics: Mapping[str, float | None]) -> bool:
        """Whether every metric is there and finite, and every constraint is kept."""
        found = self._found(metrics)
        return found is not None and self._excess(found) == 0

    @property
    def _names(self) -> tuple[str, ...]:
        return (*self.minimised, *self.subject_to)

    def _found(self, metrics: Mapping[str, float | None]) -> dict[str, float] | None:
        found = {n: float(value) for n in self._names if (value := metrics.get(n)) is not None}
        whole = len(found) == len({*self._names}) and all(map(math.isfinite, found.values()))
        return found if whole else None

    def _excess(self, found: Mapping[str, float]) -> float:
        return sum(max(0.0, found[name] - bound) for name, bound in self.subject_to.items())


class Asha(Section):
    """Asynchronous successive halving: at the steps grace·reduction^k only the best go on."""

    grace: int = Field(ge=1, description="steps before a trial may be stopped")
    reduction: float = Field(2, gt=1, description="one in this many goes on at each rung")


class Search(Section):
    """Points proposed by Optuna from the results so far, instead of grids and random draws."""

    sampler: Literal["tpe", "nsga2", "random"] = Field("tpe", description="Optuna's sampler")
    population: int = Field(16, ge=2, description="trials in a generation of nsga2")


class Population(Section):
    """Population based training (Jaderberg et al. 2017) of the keys in the space.

    All members train side by side. Every so many steps each of the worst is replaced by a copy of
    the whole state of one of the best, which goes on with slightly other values.
    """

    size: int = Field(8, ge=2, description="number of members")
    every: int = Field(ge=1, description="steps between exchanges")
    replaced: float = Field(0.25, gt=0, le=0.5, description="share of members that are replaced")


class Budget(Section):
    """What a sweep may use in all its attempts together."""

    trials: int | None = Field(None, ge=1, description="trials that may be begun")
    seconds: float | None = Field(None, gt=0, description="time in which trials run, in seconds")
    hours: float | None = Field(None, gt=0, description="time in which trials run, in hours")

    @model_validator(mode="after")
    def _one_time(self) -> Budget:
        if self.seconds is not None and self.hours is not None:
            raise ValueError("seconds and hours exclude each other")
        return self

    @property
    def time(self) -> float:
        """The time in which trials may run, in seconds; infinite without a limit."""
        if self.hours is not None:
            return 3600 * self.hours
        return math.inf if self.seconds is None else self.seconds


class ParentTrial(Section):
    """A trial of another sweep, from whose run the trials of this one start, or each of them."""

    sweep: str = Field(
        description="sweep file, or the name of one that ships; its directory lies beside that of"
        " this sweep"
    )
    point: dict[str, Any] = Field(
        {},
        description="recipe key -> value for enough keys of that sweep's space to name one trial",
    )
    every: bool = Field(
        False,
        description="one trial of this sweep for each finished trial of that one (where point fits)"
        " and each point of the space",
    )


class Sweep(Section):
    """A sweep as its file describes it."""

    base: str = Field(description="recipe that every trial starts from")
    parents: dict[str, ParentTrial] = Field(
        {},
        description="role of a parent run in the recipe -> the trial of another sweep; that sweep"
        " runs first",
    )
    overrides: dict[str, Any] = Field({}, description="dotted recipe keys set in every trial")
    space: dict[str, Entry] = Field(
        {},
        description="dotted recipe keys that are searched, each with grid: [...],"
        " uniform: [low, high] or loguniform: [low, high]",
    )
    samples: int = Field(1, ge=1, description="random draws per point of the grids")
    seed: int = Field(0, ge=0, description="seed of the random draws")
    objective: Objective = Objective()
    group_by: str | None = Field(None, description="key of the space within which trials compete")
    scheduler: Asha | None = Field(None, description="early stopping; none when left out")
    search: Search | None = Field(None, description="points proposed by Optuna; all when left out")
    population: Population | None = Field(
        None, description="values that change while members train"
    )
    budget: Budget = Budget()
    workers: int = Field(1, ge=1, description="processes that share each trial's batches")
    gpu: bool = Field(False, description="give every worker a GPU of its own")
    concurrent: int | None = Field(
        None, ge=1, description="trials at once; as many as the cluster holds when left out"
    )
    max_failures: int = Field(1, ge=0, description="how often a trial that died is started again")

    def may_vary(self, key: str) -> bool:
        """Whether trials differ where the space names a key of the base recipe."""
        if self.population is not None:
            return key.startswith("loss.") or key == "optimizer.learning_rate"
        # What is written down and kept is no part of a trial's identity.
        return key not in _RECORD

    @model_validator(mode="after")
    def _there_are_points(self) -> Sweep:
        if not self.space and not any(parent.every for parent in self.parents.values()):
            raise ValueError("a sweep needs a space, or a parent with every: true")
        return self

    @model_validator(mode="after")
    def _group_is_in_space(self) -> Sweep:
        if self.group_by is not None and self.group_by not in self.space:
            raise ValueError(
                f"group_by is {self.group_by}, but the space has {', '.join(self.space)}"
            )
        return self

    @model_validator(mode="after")
    def _search_fits(self) -> Sweep:
        if self.search is not None:
            if self.budget.trials is None:
                raise ValueError("search needs budget.trials, the number of trials to run")
            if self.group_by is not None or self.samples != 1:
                raise ValueError("search leaves no room for group_by and samples")
        return self

    @model_validator(mode="after")
    def _one_number_ranks(self) -> Sweep:
        if self.objective.against:
            if self.scheduler is not None or self.population is not None:
                raise ValueError(
                    "a scheduler or population ranks trials by one number: leave it out, or"
                    " objective.against"
                )
            if self.group_by is not None:
                raise ValueError("group_by and objective.against exclude each other")
        return self

    @model_validator(mode="after")
    def _population_fits(self) -> Sweep:
        if self.population is None:
            return self
        others = (self.search, self.scheduler, self.group_by, self.budget.trials)
        if any(other is not None for other in others) or self.samples != 1:
            raise ValueError(
                "population leaves no room for search, scheduler, group_by, samples and"
                " budget.trials"
            )
        every = [f"parents.{role}" for role, parent in self.parents.items() if parent.every]
        for key in (*self.space, *every):
            if not self.may_vary(key):
                raise ValueError(
                    f"population cannot change {key} in a run, only loss.* and"
                    " optimizer.learning_rate"
                )
        return self


def load(source: str | Path, overrides: Mapping[str, Any]) -> Sweep:
    """Read a sweep file, or one that ships with gencomp by its name.

    Args:
        source: the path of a file, or the name of one that ships with gencomp.
        overrides: dotted recipe keys that the caller sets in every trial.

    Raises:
        InputError: there is no such file, or a value in it is wrong.
    """
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        path = Path(__file__).with_name(f"{source}.yaml")
    if not path.is_file():
        names = ", ".join(shipped.names(__package__))
        raise InputError(f"sweep {source} does not exist; shipped sweeps are {names}")
    raw = recipes.read(path)
    try:
        sweep = Sweep.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"sweep {source}: {sentence(error, Sweep)}") from None
    return sweep.model_copy(update={"overrides": {**sweep.overrides, **overrides}})


def points(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Every point of the space: the product of the grids, times `samples` draws of the rest."""
    grids = {key: entry.grid for key, entry in sweep.space.items() if isinstance(entry, Grid)}
    random = {key: entry for key, entry in sweep.space.items() if not isinstance(entry, Grid)}
    generator = np.random.Generator(np.random.Philox(sweep.seed))
    for combination in itertools.product(*grids.values()):
        for _ in range(sweep.samples if random else 1):
            drawn = {key: draw(entry, generator) for key, entry in random.items()}
            point = {**dict(zip(grids, combination, strict=True)), **drawn}
            yield {key: point[key] for key in sweep.space}


def extremes(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Points that show whether all of a space makes valid recipes.

    Each entry takes its bounds, or all values of its grid, while the others keep their first.
    """
    ends = {
        key: entry.grid if isinstance(entry, Grid) else entry.bounds
        for key, entry in sweep.space.items()
    }
    first = {key: values[0] for key, values in ends.items()}
    yield first
    for key, values in ends.items():
        yield from ({**first, key: value} for value in values[1:])


def contains(sweep: Sweep, point: Mapping[str, Any]) -> bool:
    """Whether a point lies in the space of a sweep."""
    return point.keys() == sweep.space.keys() and all(
        point[key] in entry.grid
        if isinstance(entry, Grid)
        else isinstance(point[key], float) and entry.bounds[0] <= point[key] <= entry.bounds[1]
        for key, entry in sweep.space.items()
    )


def draw(entry: Entry, generator: np.random.Generator) -> Any:
    """A random value of an entry of the space."""
    if isinstance(entry, Grid):
        return entry.grid[int(generator.integers(len(entry.grid)))]
    if isinstance(entry, Uniform):
        return float(generator.uniform(*entry.bounds))
    low, high = map(math.log, entry.bounds)
    return float(math.exp(generator.uniform(low, high)))


def dump(sweep: Sweep) -> str:
    """The text of the file of a sweep, which `load` reads again."""
    return yaml_text.dump(sweep.model_dump(mode="json"))
