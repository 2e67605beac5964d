"""The system of each stage."""

from __future__ import annotations

from gencomp.systems.irec.recipe import IrecRecipe, OneLevelRecipe, RvaeRecipe, TwoLevelRecipe
from gencomp.systems.irec.system import IrecSystem, Lossless, OneLevelSystem, TwoLevelSystem


def build(recipe: IrecRecipe) -> IrecSystem:
    """The system of a stage with fresh weights."""
    match recipe:
        case RvaeRecipe():
            return Lossless(recipe)
        case TwoLevelRecipe():
            return TwoLevelSystem(recipe)
        case OneLevelRecipe():
            return OneLevelSystem(recipe)
    raise TypeError(f"no system for {type(recipe).__name__}")
