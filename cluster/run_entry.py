"""How a run begins: the run of a recipe is created, or one of the same recipe and data entered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster import data, provenance
from cluster.files import write_text
from cluster.runs import Run, open_run
from gencomp import recipes
from gencomp.errors import InputError
from gencomp.recipes.schema import RECORD_FIELDS, BaseRecipe
from gencomp.systems import require_buildable

_RECORD = {f"training.{field}" for field in RECORD_FIELDS}


def enter(path: Path, recipe: BaseRecipe, history: Mapping[str, Any] | None = None) -> Run:
    """Create the run of a recipe, or enter the existing one of the same recipe and data.

    Args:
        path: the run's directory.
        recipe: the resolved recipe.
        history: more entries of the run's identity, for whatever else its weights come from.

    Raises:
        InputError: data or a parent run are missing, or the directory holds a run of another
            recipe; nothing is changed.
    """
    identity = identify(recipe) | dict(history or {})
    recipe = recipes.with_absolute_paths(recipe)
    run = Run(path)
    if (path / "identity.json").exists():
        differences = _differences(run.identity(), identity)
        if differences:
            raise InputError(
                f"run {path} exists with another recipe or other data: {'; '.join(differences)}"
                " (choose another --name, or the recipe that it has)"
            )
        # The recipe is written again, since data and parents may have moved since last time.
        write_text(path / "recipe.yaml", recipes.dump(recipe))
        return run
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{path} exists, is not empty and is not a run; choose another --name")
    # It is made under another name and renamed, as a half-made run could never be entered again.
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "parents").mkdir(parents=True)
    for role, parent in recipe.parent_runs().items():
        write_text(partial / "parents" / f"{role}.yaml", recipes.dump(open_run(parent).recipe()))
    write_text(partial / "recipe.yaml", recipes.dump(recipe))
    write_text(partial / provenance.FILE, json.dumps(provenance.environment(), indent=1))
    write_text(partial / "identity.json", json.dumps(identity, indent=1))
    partial.rename(path)
    return run


def identify(recipe: BaseRecipe) -> dict[str, Any]:
    """The identity of the run that a recipe would make now.

    Raises:
        ValueError: the data or a parent run are missing, or a parent does not fit.
    """
    images = data.hashes(recipe)
    parents = {role: open_run(path) for role, path in recipe.parent_runs().items()}
    weights = {role: parent.final_checkpoint().networks_hash() for role, parent in parents.items()}
    # Sizes and parents that do not fit are refused before anything starts.
    require_buildable(recipe, {role: parent.recipe() for role, parent in parents.items()})
    return recipes.identity(recipe, images, weights)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} was {old.get(key)!r} and would be {new.get(key)!r}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and key not in _RECORD  # only older runs have these keys
    ]
