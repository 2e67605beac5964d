"""How a run begins: the run of a recipe is created, or one of the same recipe and data entered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster import data, provenance
from cluster.files import write_text
from cluster.run_status import is_run
from cluster.runs import Run, open_run
from gencomp import recipes, yaml_text
from gencomp.errors import InputError
from gencomp.recipes.schema import RECORD_FIELDS, BaseRecipe
from gencomp.systems import require_buildable

_RECORD = {f"training.{field}" for field in RECORD_FIELDS}


def enter(
    path: Path,
    recipe: BaseRecipe,
    history: Mapping[str, Any] | None = None,
    identity: Mapping[str, Any] | None = None,
) -> Run:
    """Create the run of a recipe, or enter the existing one of the same recipe and data.

    Args:
        path: the run's directory.
        recipe: the resolved recipe.
        history: more entries of the run's identity, for whatever else its weights come from.
        identity: the identity of the recipe, if the caller has it from `Identities` already and
            has called `require_fitting` for a run that is new.

    Raises:
        InputError: data or a parent run are missing, or the directory holds a run of another
            recipe; nothing is changed.
    """
    found = dict(identity or Identities().of(recipe)) | dict(history or {})
    names = data.classes_of_maps(recipe)
    run, absolute = Run(path), recipes.with_absolute_paths(recipes.completed(recipe, names))
    if is_run(path):
        differences = _differences(run.identity(), found, recipe.from_classes(names))
        if differences:
            raise InputError(
                f"run {path} exists with another recipe or other data: {'; '.join(differences)}"
                " (choose another --name, or the recipe that it has)"
            )
        if _written(path / "recipe.yaml") != absolute.model_dump(mode="json"):
            # Data and parents may have moved since last time, or have got names.
            write_text(path / "recipe.yaml", recipes.dump(absolute))
        return run
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{path} exists, is not empty and is not a run; choose another --name")
    if identity is None:
        require_fitting(recipe)
    # It is made under another name and renamed, as a half-made run could never be entered again.
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "parents").mkdir(parents=True)
    for role, parent in absolute.parent_runs().items():
        write_text(partial / "parents" / f"{role}.yaml", recipes.dump(open_run(parent).recipe()))
    write_text(partial / "recipe.yaml", recipes.dump(absolute))
    write_text(partial / provenance.FILE, json.dumps(provenance.environment(), indent=1))
    write_text(partial / "identity.json", json.dumps(found, indent=1))
    partial.rename(path)
    return run


class Identities:
    """Identifies the runs that recipes would make now, and looks up only once what they share."""

    def __init__(self) -> None:
        self._data: dict[str, dict[str, str]] = {}
        self._weights: dict[str, str] = {}

    def of(self, recipe: BaseRecipe) -> dict[str, Any]:
        """The identity of a recipe's run. Whether sizes fit is told by `require_fitting`.

        Raises:
            ValueError: the data or a parent run are missing.
        """
        images = recipe.data.model_dump_json() + recipe.evaluation.model_dump_json()
        if images not in self._data:
            self._data[images] = data.hashes(recipe)
        parents = recipe.parent_runs()
        for path in parents.values():
            if path not in self._weights:
                self._weights[path] = open_run(path).final_checkpoint().networks_hash()
        weights = {role: self._weights[path] for role, path in parents.items()}
        return recipes.identity(recipe, self._data[images], weights)


def require_fitting(recipe: BaseRecipe) -> None:
    """Raise `InputError` where sizes, data or a parent do not fit, before anything starts."""
    recipe.require_classes(data.classes_of_maps(recipe))
    parents = {role: open_run(path).recipe() for role, path in recipe.parent_runs().items()}
    require_buildable(recipe, parents)


def _written(path: Path) -> Any:
    """The content of a recipe's file; None if it cannot be read."""
    try:
        return yaml_text.parse(path.read_bytes())
    except (OSError, yaml_text.YAMLError):
        return None


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], taken: Mapping[str, Any]
) -> list[str]:
    """What differs between two identities; no difference is what a run has taken from its data."""

    def alike(key: str) -> bool:
        return (
            old.get(key) == new.get(key)
            or key in _RECORD  # only older runs have these keys
            or (key in taken and not old.get(key) and new.get(key) == taken[key])
        )

    return [
        f"{key} was {old.get(key)!r} and would be {new.get(key)!r}"
        for key in sorted({*old, *new})
        if not alike(key)
    ]
