"""Runs in the plane of distortion and perception, with the bases that they start from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.results import metrics, pictures
from cluster.results.metrics import training_interval
from cluster.runs import Run
from gencomp import recipes
from gencomp.errors import InputError
from gencomp.evaluation.measured import Measured
from gencomp.figures import curves
from gencomp.figures.tradeoff import Point
from gencomp.recipes.schema import BaseRecipe
from gencomp.report import TradeoffRun
from gencomp.report.wording import value_of

_EVALUATION = "metrics"  # the usual name of `gencomp evaluate`
_OF_EVALUATION = ("swd",)  # the measures of perception that it has and trainings have not
_NO_METRICS = ("step", "samples", "images", "protocol")
_ERROR = "_standard_error"


def points(paths: Sequence[Path], distortion: str, perception: str) -> list[Point]:
    """Finished runs as points.

    Args:
        paths: the directories of the runs.
        distortion, perception: the metrics of the axes.

    Raises:
        InputError: a run is not finished, has no such metric, or was evaluated on other images than
            the first run.
    """
    runs = measured(paths)
    for run in runs:
        for name in (distortion, perception):
            if name not in run.values:
                known = ", ".join(sorted(run.values))
                raise InputError(f"run {run.directory} has no {name}; it has {known}")
    return [
        Point(
            series=run.series,
            x=run.values[distortion].value,
            y=run.values[perception].value,
            x_interval=run.values[distortion].interval,
            y_interval=run.values[perception].interval,
            label=run.label,
            name=run.name,
            bases=tuple(run.bases),
        )
        for run in runs
    ]


def measured(paths: Sequence[Path]) -> list[TradeoffRun]:
    """Finished runs with what their trainings and evaluations say of them.

    A run that does no more than measure another, as a fresh critic does, adds its metrics to that
    run, whether that run is among them or not.

    Args:
        paths: the directories of the runs.

    Raises:
        InputError: a run is not finished, or was evaluated on other images than the first run.
    """
    runs = pictures.finished_runs(paths)
    _require_one_evaluation(runs)
    found: dict[str, TradeoffRun] = {}
    chosen: dict[str, BaseRecipe] = {}
    # Runs come before those that measure them, so that their own metrics take precedence.
    for run in sorted(runs, key=lambda run: run.recipe().MEASURES is not None):
        weights, recipe, bases = _subject(run)
        chosen.setdefault(weights, recipe)
        values = _of_training(run)
        if run.recipe().MEASURES is None:
            values |= _of_evaluation(run)
        if (known := found.get(weights)) is not None:
            found[weights] = replace(known, values={**values, **known.values})
            continue
        found[weights] = TradeoffRun(
            series=f"{recipe.system}/{recipe.stage}",
            label="",
            name=weights,
            bases=bases,
            directory=str(run.path),
            nominal_bpp=(run.result() or {}).get("nominal_bpp"),
            images=int((run.result() or {})["images"]),
            values=values,
        )
    labelled = zip(found.values(), _labels(list(chosen.values())), strict=True)
    return _with_rates([replace(one, label=label) for one, label in labelled])


def _subject(run: Run) -> tuple[str, BaseRecipe, list[str]]:
    """The run that a run's metrics are about: its weights, its recipe, and weights of its bases."""
    recipe = run.recipe()
    parents = {
        key.removeprefix("parent."): str(value)
        for key, value in run.identity().items()
        if key.startswith("parent.")
    }
    if (role := recipe.MEASURES) is None:
        return run.final_checkpoint().networks_hash(), recipe, list(parents.values())
    return parents.pop(role), run.parent_recipes()[role], list(parents.values())


def _of_training(run: Run) -> dict[str, Measured]:
    """The metrics of the last evaluation of a training."""
    result = run.result() or {}
    names = [name for name in result if name not in _NO_METRICS and not name.endswith(_ERROR)]
    return {
        name: Measured(result[name], training_interval(result, name))
        for name in names
        if result[name] is not None
    }


def _of_evaluation(run: Run) -> dict[str, Measured]:
    """The measures of perception that only `gencomp evaluate` has, if it has measured the run."""
    point = {name: _evaluated(run.path, name) for name in _OF_EVALUATION}
    return {name: Measured(one.value, one.interval) for name, one in point.items() if one}


def _evaluated(path: Path, name: str) -> curves.Point | None:
    if not (path / "evaluations" / _EVALUATION / "metrics.json").is_file():
        return None
    return metrics.of_run(path, _EVALUATION, "files").point(name, bpp=0.0)


def _labels(chosen: Sequence[BaseRecipe]) -> list[str]:
    """What tells each run from the others of its stage: its loss, other values, its seed."""
    flats = [recipes.flatten(one.model_dump(mode="json")) for one in chosen]
    stages = [(flat["system"], flat["stage"]) for flat in flats]
    taken = {key for one in chosen for key in one.DATA_KEYS}

    def varies(key: str, among: Iterable[Mapping[str, Any]]) -> bool:
        return len({str(flat[key]) for flat in among if key in flat}) > 1

    labels = []
    for own, stage in zip(flats, stages, strict=True):
        peers = [flat for flat, of in zip(flats, stages, strict=True) if of == stage]
        keys = [
            key
            for key in own
            if key not in taken
            and (
                (key.startswith("loss.") and varies(key, flats))
                or ((pictures.is_of_method(key) or key == "training.seed") and varies(key, peers))
            )
        ]
        labels.append(", ".join(value_of(key, own[key]) for key in keys))
    return labels


def _with_rates(runs: list[TradeoffRun]) -> list[TradeoffRun]:
    """The runs with their nominal rates in the names of their series, if the rates differ."""
    if len({run.nominal_bpp for run in runs}) < 2:
        return runs
    return [
        replace(run, series=f"{run.series}, {run.nominal_bpp:.3g} bpp")
        if run.nominal_bpp is not None
        else run
        for run in runs
    ]


def _require_one_evaluation(runs: Sequence[Run]) -> None:
    """Require that all runs were evaluated on the same images.

    Raises:
        InputError: two runs were not, by their trainings or by `gencomp evaluate`.
    """
    first = runs[0]
    ours = _evaluated_on(first)
    for run in runs[1:]:
        if _evaluated_on(run) != ours:
            raise InputError(
                f"{pictures.stage(run)} and {pictures.stage(first)} were evaluated on"
                " different images, so their points cannot stand in one figure"
            )
    for name in _OF_EVALUATION:
        found = [one for run in runs if (one := _evaluated(run.path, name)) is not None]
        if found:
            curves.require_one_protocol(curves.Panel(name, found))


def _evaluated_on(run: Run) -> tuple[Any, ...]:
    identity = run.identity()
    data = identity.get("evaluation.data", identity["data"])
    return data, run.recipe().evaluation.split, (run.result() or {}).get("images")
