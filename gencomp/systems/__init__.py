"""The published systems; each takes one import line and one branch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe
from gencomp.systems.dplc import recipe as dplc
from gencomp.systems.urdp import recipe as urdp
from gencomp.systems.vae.recipe import VaeRecipe

if TYPE_CHECKING:  # recipes are read without torch
    from gencomp.system import System


def build_system(recipe: BaseRecipe, parents: Mapping[str, BaseRecipe]) -> System:
    """The system of a recipe, with weights freshly drawn from torch's global generator.

    Args:
        recipe: the recipe of the stage.
        parents: the recipe of each run that it starts from, by role; a parent's recipe fixes the
            sizes that the two share.

    Raises:
        InputError: a parent is a run of the wrong system or stage.
    """
    from gencomp.systems.dplc import coders, generators
    from gencomp.systems.urdp import system as urdp_systems
    from gencomp.systems.vae.system import Vae

    match recipe:
        case dplc.WaeRecipe() | dplc.WassersteinPpRecipe():
            return generators.AutoencodingGenerator(recipe)
        case dplc.WganGpRecipe():
            return generators.WganGpGenerator(recipe)
        case dplc.CodecRecipe():
            generator = parents["generator"]
            if not isinstance(generator, dplc.GeneratorRecipe):
                raise InputError(
                    f"{recipe.parents.generator} is a run of {generator.system}/{generator.stage};"
                    " a dplc/codec needs one of dplc/wae, dplc/wgan_gp or dplc/wasserstein_pp"
                )
            return coders.RateConstrainedCodec(recipe, generator)
        case dplc.CaeRecipe() | dplc.GcRecipe():
            return coders.Baseline(recipe)
        case urdp.EndToEndRecipe():
            return urdp_systems.EndToEnd(recipe)
        case urdp.UniversalRecipe():
            return urdp_systems.Universal(recipe, _encoder_run(recipe, parents))
        case urdp.RefinementRecipe():
            return urdp_systems.Refinement(recipe, _encoder_run(recipe, parents))
        case urdp.CriticRecipe():
            return urdp_systems.FreshCritic(recipe, *_decoder_runs(recipe, parents))
        case VaeRecipe():
            return Vae(recipe)
    raise TypeError(f"no system for {type(recipe).__name__}")


def _decoder_runs(
    recipe: urdp.CriticRecipe, parents: Mapping[str, BaseRecipe]
) -> tuple[BaseRecipe, urdp.EndToEndRecipe]:
    """The recipes of the decoder's run and of the run whose encoder it reads."""
    decoder = parents["decoder"]
    if isinstance(decoder, urdp.EndToEndRecipe):
        if "encoder" in parents:
            raise InputError(
                f"{recipe.parents.decoder} has an encoder of its own: parents.encoder must be null"
            )
        return decoder, decoder
    if not isinstance(decoder, urdp.UniversalRecipe | urdp.RefinementRecipe):
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
    recipe: urdp.UniversalRecipe | urdp.RefinementRecipe | urdp.CriticRecipe,
    parents: Mapping[str, BaseRecipe],
) -> urdp.EndToEndRecipe:
    """The recipe of the run whose encoder a stage freezes."""
    parent = parents["encoder"]
    if not isinstance(parent, urdp.EndToEndRecipe):
        raise InputError(
            f"{recipe.parents.encoder} is a run of {parent.system}/{parent.stage}; a"
            f" urdp/{recipe.stage} needs one of urdp/end_to_end"
        )
    return parent
