"""The sweeps that ship: every point is a valid recipe whose codec can be built."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch

import sweeps
from gencomp import recipes
from gencomp.recipes.schema import BaseRecipe
from gencomp.systems import build_system
from gencomp.systems.gan_compression.recipe import GanRecipe
from shards.building.sources.class_names import class_names
from sweeps import sweep_file

SHIPPED = sorted(path.stem for path in Path(sweeps.__file__).parent.glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_point_builds(name: str) -> None:
    sweep = sweep_file.load(name, {})
    if name.startswith("dplc"):
        stage = "wae" if name.endswith("glyphs") else "wasserstein_pp"
        families = [{"generator": recipes.load(sweep.base.replace("codec", stage))}]
    else:
        known = {role: parent_recipes(one) for role, one in sweep.parents.items()}
        families = [dict(zip(known, one, strict=True)) for one in product(*known.values())]
    found = [*sweep_file.points(sweep), *sweep_file.extremes(sweep)]
    for point, parents in product(found, families):
        recipe = recipes.load(sweep.base, {**sweep.overrides, **point})
        with torch.device("meta"):
            assert build_system(recipe, parents).codec is not None
    if "networks.code_channels" in sweep.space:
        # The narrow generators of digits and letters have 16 latent dimensions, which bound the
        # channels.
        rates = {"mnist": {1, 8}, "glyphs": {1, 4, 16}}.get(name.split("_")[-1], {2, 8, 32})
        assert {point["networks.code_channels"] for point in found} >= rates


def parent_recipes(parent: sweep_file.ParentTrial) -> list[BaseRecipe]:
    """The recipe of the trial that a sweep names as a parent, or of each; points of that sweep."""
    sweep = sweep_file.load(parent.sweep, {})
    points = list(sweep_file.points(sweep))
    if not parent.every:
        assert parent.point in points
        points = [parent.point]
    return [recipes.load(sweep.base, {**sweep.overrides, **point}) for point in points]


def test_the_published_models_of_universal_codecs() -> None:
    """52 models in all, and the chains that they form."""
    counts = {
        name: len(list(sweep_file.points(sweep_file.load(name, {}))))
        for name in SHIPPED
        if name.startswith("urdp")
        and not {"narrow", "short", "seeds", "glyphs", "bits", "critics"} & {*name.split("_")}
    }
    assert sum(counts.values()) == 52
    assert counts["urdp_lambda_mnist"] == 9 and counts["urdp_lambda_universal_svhn"] == 7
    for images, weight in (("mnist", 0.015), ("svhn", 0.002)):
        for stage, expected in (("universal", weight), ("refinement", 0)):
            parent = sweep_file.load(f"urdp_lambda_{stage}_{images}", {}).parents["encoder"]
            assert parent.sweep == f"urdp_lambda_{images}"
            assert parent.point == {"loss.perception_weight": expected}


def test_every_published_model_has_a_fresh_critic() -> None:
    """With the encoder that its decoder reads, which a codec trained end to end has itself."""
    judged = 0
    for name in (name for name in SHIPPED if name.startswith("urdp_critics")):
        found = sweep_file.load(name, {})
        decoder, encoder = found.parents["decoder"], found.parents.get("encoder")
        assert decoder.every and not found.space
        judged += len(parent_recipes(decoder))
        assert encoder == sweep_file.load(decoder.sweep, {}).parents.get("encoder")
    assert judged == 52


def test_budgets_of_shared_bits_differ_in_nothing_else() -> None:
    """Each budget has the same weights, and without a limit the trials are those of short ones."""
    sweep = sweep_file.load("urdp_bits_mnist", {})
    points = list(sweep_file.points(sweep))
    weights: dict[int | None, list[float]] = {}
    for point in points:
        weights.setdefault(point["code.shared_bits"], []).append(point["loss.perception_weight"])
    assert list(weights) == [0, 1, 2, 4, 8, None]
    assert len({tuple(found) for found in weights.values()}) == 1
    short = sweep_file.load("urdp_short_mnist", {})
    assert (short.base, short.overrides) == (sweep.base, sweep.overrides)


@pytest.mark.parametrize(
    "name", [name for name in SHIPPED if "rates" in name and not name.endswith("glyphs")]
)
def test_the_published_rates(name: str) -> None:
    grid = sweep_file.load(name, {}).space["networks.code_channels"]
    assert isinstance(grid, sweep_file.Grid)
    # The narrow generator has 32 latent dimensions.
    assert grid.grid == ((2, 8, 32) if name.endswith("photos") else (2, 8, 32, 128))


def test_members_of_the_population_are_evaluated_when_they_are_compared() -> None:
    sweep = sweep_file.load("dplc_population_photos", {})
    assert sweep.population is not None
    assert sweep.population.every % recipes.load(sweep.base).evaluation.every == 0


@pytest.mark.parametrize("name", [name for name in SHIPPED if "joint" in name])
def test_a_joint_search_has_one_winner_under_a_budget_of_bits(name: str) -> None:
    sweep = sweep_file.load(name, {})
    assert sweep.group_by is None and "nominal_bpp" in sweep.objective.subject_to
    weights = {point["loss.mmd_weight"] for point in sweep_file.points(sweep)}
    assert len(weights) == len(list(sweep_file.points(sweep)))


@pytest.mark.parametrize("images", ["cityscapes", "ade20k"])
def test_generative_codecs_in_all_modes_at_all_rates(images: str) -> None:
    found = set()
    for name in (f"gan_channels_{images}", f"gan_modes_{images}", f"gan_kept_{images}"):
        sweep = sweep_file.load(name, {})
        for point in sweep_file.points(sweep):
            recipe = recipes.load(sweep.base, {**sweep.overrides, **point})
            assert isinstance(recipe, GanRecipe)
            found.add((recipe.labels.mode, recipe.code.channels))
    modes = ("global", "global_plus", "conditional", "selective")
    assert found == {(mode, channels) for mode in modes for channels in (2, 4, 8, 16)}


@pytest.mark.parametrize("images", ["cityscapes", "ade20k"])
def test_the_classes_that_selective_sweeps_keep(images: str) -> None:
    sweep = sweep_file.load(f"gan_kept_{images}", {})
    recipe = recipes.load(sweep.base, sweep.overrides)
    assert isinstance(recipe, GanRecipe) and recipe.codec.keep is not None
    names = class_names(images)
    assert [names[int(one)] for one in recipe.codec.keep] == ["person", "car"]
