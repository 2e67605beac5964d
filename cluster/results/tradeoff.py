"""Runs as points of distortion and perception, and the lines that join them to their bases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster.results import pictures
from cluster.results.metrics import training_interval
from cluster.runs import Run
from gencomp import recipes
from gencomp.errors import InputError
from gencomp.figures.tradeoff import Point
from gencomp.report.wording import value_of


def points(paths: Sequence[Path], distortion: str, perception: str) -> list[Point]:
    """The last evaluations of finished runs as points.

    Args:
        paths: the directories of the runs.
        distortion, perception: metrics of their evaluations.

    Raises:
        InputError: a run is not finished, has no such metric, or was evaluated on other images than
            the first run.
    """
    runs = pictures.finished_runs(paths)
    keys = _varying(runs)
    found = []
    for run in runs:
        result = run.result() or {}
        for name in (distortion, perception):
            if name not in result:
                known = ", ".join(sorted(key for key in result if key != "images"))
                raise InputError(f"{pictures.stage(run)} has no {name}; it has {known}")
        recipe = run.recipe()
        flat = recipes.flatten(recipe.model_dump(mode="json"))
        found.append(
            Point(
                series=f"{recipe.system}/{recipe.stage}",
                x=result[distortion],
                y=result[perception],
                x_interval=training_interval(result, distortion),
                y_interval=training_interval(result, perception),
                label=", ".join(value_of(key, flat[key]) for key in keys if key in flat),
                name=str(run.path.resolve()),
                bases=tuple(
                    str(Path(parent).resolve()) for parent in recipe.parent_runs().values()
                ),
            )
        )
    _require_one_data(runs)
    return found


def _varying(runs: Sequence[Run]) -> list[str]:
    """The keys of the methods' losses that differ among the runs, for labels."""
    flats = [recipes.flatten(run.recipe().model_dump(mode="json")) for run in runs]
    keys = dict.fromkeys(key for flat in flats for key in flat if key.startswith("loss."))
    return [key for key in keys if len({flat[key] for flat in flats if key in flat}) > 1]


def _require_one_data(runs: Sequence[Run]) -> None:
    first = runs[0].identity()
    for run in runs[1:]:
        for key in ("evaluation.data", "data"):
            ours, theirs = run.identity().get(key), first.get(key)
            if ours != theirs:
                raise InputError(
                    f"{pictures.stage(run)} and {pictures.stage(runs[0])} were evaluated on"
                    " different images, so their points cannot stand in one figure"
                )
