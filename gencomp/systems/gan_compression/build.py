"""The system of each stage, and the parent that it may start from."""

from __future__ import annotations

from collections.abc import Mapping

from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe
from gencomp.systems.gan_compression.recipe import AdversarialRecipe, DistortionRecipe, GanRecipe
from gencomp.systems.gan_compression.system import Adversarial, Distortion, GanSystem


def build(recipe: GanRecipe, parents: Mapping[str, BaseRecipe]) -> GanSystem:
    """The system of a stage with fresh weights.

    Args:
        recipe: the recipe of the stage.
        parents: the recipe of each run that it starts from, by role.

    Raises:
        InputError: the parent is a run of another system, or has other networks.
    """
    match recipe:
        case DistortionRecipe():
            return Distortion(recipe)
        case AdversarialRecipe():
            if "distortion" in parents:
                _require_same_networks(recipe, parents["distortion"])
            return Adversarial(recipe)
    raise TypeError(f"no system for {type(recipe).__name__}")


def _require_same_networks(recipe: AdversarialRecipe, parent: BaseRecipe) -> None:
    """Raise `InputError` unless encoder and decoder of the parent fit."""
    path = recipe.parents.distortion
    if not isinstance(parent, GanRecipe):
        raise InputError(
            f"{path} is a run of {parent.system}/{parent.stage}; a {recipe.system}/{recipe.stage}"
            f" starts from one of {recipe.system}/distortion or {recipe.system}/adversarial"
        )
    own, other = recipe.shared_with_parent(), parent.shared_with_parent()
    for key in dict.fromkeys([*own, *other]):
        if own.get(key) != other.get(key):
            raise InputError(
                f"{key} is {own.get(key)}, but {other.get(key)} in the recipe of {path}, whose"
                " encoder and decoder training starts from: set one to the other"
            )
