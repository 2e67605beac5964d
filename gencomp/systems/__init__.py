"""The published systems; each takes one import line and one branch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe
from gencomp.systems.classifier.recipe import ClassifierRecipe
from gencomp.systems.dplc import recipe as dplc
from gencomp.systems.gan_compression.recipe import GanRecipe
from gencomp.systems.irec import recipe as irec
from gencomp.systems.pixel_classifier.recipe import PixelClassifierRecipe
from gencomp.systems.urdp import recipe as urdp
from gencomp.systems.vae.recipe import VaeRecipe

if TYPE_CHECKING:  # recipes are read without torch
    from gencomp.system import System


def require_buildable(recipe: BaseRecipe, parents: Mapping[str, BaseRecipe]) -> None:
    """Raise `InputError` where `build_system` would, without memory for weights and without time.

    Args:
        recipe: the recipe of the stage.
        parents: the recipe of each run that it starts from, by role.
    """
    plan_system(recipe, parents)


def plan_system(recipe: BaseRecipe, parents: Mapping[str, BaseRecipe]) -> System:
    """The system of a recipe on the device `meta`: its weights have shapes and types, no values.

    Args:
        recipe: the recipe of the stage.
        parents: the recipe of each run that it starts from, by role.

    Raises:
        InputError: a parent is a run of the wrong system or stage.
    """
    import torch

    from gencomp.systems.common.unfilled import Unfilled

    with torch.device("meta"), Unfilled():
        return build_system(recipe, parents)


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
        case ClassifierRecipe():
            from gencomp.systems.classifier.system import Classifier

            return Classifier(recipe)
        case PixelClassifierRecipe():
            from gencomp.systems.pixel_classifier.system import PixelClassifier

            return PixelClassifier(recipe)
        case GanRecipe():
            from gencomp.systems.gan_compression.build import build as build_gan

            return build_gan(recipe, parents)
        case irec.IrecRecipe():
            from gencomp.systems.irec.build import build as build_irec

            return build_irec(recipe)
        case urdp.UrdpRecipe():
            from gencomp.systems.urdp.build import build

            return build(recipe, parents)
        case VaeRecipe():
            from gencomp.systems.vae.system import Vae

            return Vae(recipe)
    raise TypeError(f"no system for {type(recipe).__name__}")


def without_refinement(stream: bytes) -> bytes:
    """A container without the refinement of its pictures, for decoders of the base alone.

    No network is needed, and so no run: one method's containers have such a layer, and their form
    tells them from those of the others.

    Raises:
        InputError: the stream is damaged, or holds no refinement.
    """
    from gencomp.systems.urdp.codec import without_refinement as cut

    return cut(stream)
