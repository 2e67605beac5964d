"""The system of each stage, and the parents that it may start from."""

from __future__ import annotations

from collections.abc import Mapping

from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe
from gencomp.systems.urdp.recipe import (
    CriticRecipe,
    EndToEndRecipe,
    RefinementRecipe,
    UniversalRecipe,
    UrdpRecipe,
)
from gencomp.systems.urdp.system import EndToEnd, FreshCritic, Refinement, Universal, UrdpSystem


def build(recipe: UrdpRecipe, parents: Mapping[str, BaseRecipe]) -> UrdpSystem:
    """The system of a stage with fresh weights.

    Args:
        recipe: the recipe of the stage.
        parents: the recipe of each run that it starts from, by role.

    Raises:
        InputError: a parent is a run of the wrong stage, or is missing.
    """
    match recipe:
        case EndToEndRecipe():
            return EndToEnd(recipe)
        case UniversalRecipe():
            return Universal(recipe, _encoder_run(recipe, parents))
        case RefinementRecipe():
            return Refinement(recipe, _encoder_run(recipe, parents))
        case CriticRecipe():
            return FreshCritic(recipe, *_decoder_runs(recipe, parents))
    raise TypeError(f"no system for {type(recipe).__name__}")


def _decoder_runs(
    recipe: CriticRecipe, parents: Mapping[str, BaseRecipe]
) -> tuple[BaseRecipe, EndToEndRecipe]:
    """The recipes of the decoder's run and of the run whose encoder it reads."""
    decoder = parents["decoder"]
    if isinstance(decoder, EndToEndRecipe):
        if "encoder" in parents:
            raise InputError(
                f"{recipe.parents.decoder} has an encoder of its own: parents.encoder must be null"
            )
        return decoder, decoder
    if not isinstance(decoder, UniversalRecipe | RefinementRecipe):
        raise InputError(
            f"{recipe.parents.decoder} is a run of {decoder.system}/{decoder.stage}; a urdp/critic"
            " needs one of urdp/end_to_end, urdp/universal or urdp/refinement"
        )
    if "encoder" not in parents:
        raise InputError(
            f"{recipe.parents.decoder} is a run of urdp/{decoder.stage}, which reads the code of"
            " another run: give that run as parents.encoder"
        )
    return decoder, _encoder_run(recipe, parents)


def _encoder_run(
    recipe: UniversalRecipe | RefinementRecipe | CriticRecipe,
    parents: Mapping[str, BaseRecipe],
) -> EndToEndRecipe:
    """The recipe of the run whose encoder a stage freezes."""
    parent = parents["encoder"]
    if not isinstance(parent, EndToEndRecipe):
        raise InputError(
            f"{recipe.parents.encoder} is a run of {parent.system}/{parent.stage}; a"
            f" urdp/{recipe.stage} needs one of urdp/end_to_end"
        )
    return parent
