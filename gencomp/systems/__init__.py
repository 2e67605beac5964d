"""The published systems: one import line and one branch each."""

from __future__ import annotations

from collections.abc import Mapping

from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import System
from gencomp.systems.dplc_recipe import DplcCodecRecipe, DplcGeneratorRecipe


def build_system(recipe: BaseRecipe, parents: Mapping[str, BaseRecipe]) -> System:
    """The system of a recipe, with freshly drawn weights from torch's global generator.

    Args:
        recipe: the stage's recipe.
        parents: role -> recipe of each run it starts from, which fixes the sizes it shares with it.

    Raises:
        InputError: a parent is a run of the wrong system or stage.
    """
    from gencomp.systems import dplc

    if isinstance(recipe, DplcGeneratorRecipe):
        return dplc.WaeGenerator(recipe)
    if isinstance(recipe, DplcCodecRecipe):
        generator = parents["generator"]
        if not isinstance(generator, DplcGeneratorRecipe):
            raise InputError(
                f"{recipe.parents.generator} is a run of {generator.system}/{generator.stage};"
                " a dplc/codec needs one of dplc/generator"
            )
        return dplc.RateConstrainedCodec(recipe, generator)
    raise TypeError(f"no system for {type(recipe).__name__}")
