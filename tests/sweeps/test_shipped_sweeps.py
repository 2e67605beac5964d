"""The sweeps that ship: every point is a valid recipe whose codec can be built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sweeps
from gencomp import recipes
from gencomp.systems import build_system
from gencomp.systems.dplc.recipe import CodecRecipe
from sweeps import sweep_file

SHIPPED = sorted(path.stem for path in Path(sweeps.__file__).parent.glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_point_builds(name: str) -> None:
    sweep = sweep_file.load(name, {})
    generator = recipes.load(sweep.base.replace("codec", "wasserstein_pp"))
    found = [*sweep_file.points(sweep), *sweep_file.extremes(sweep)]
    for point in found:
        recipe = recipes.load(sweep.base, {**sweep.overrides, **point})
        assert isinstance(recipe, CodecRecipe)
        with torch.device("meta"):
            build_system(recipe, {"generator": generator})
    if "networks.code_channels" in sweep.space:
        # The narrow generator of digits has 16 latent dimensions, which bound the channels.
        rates = {1, 2, 8} if name.endswith("mnist") else {2, 8, 32}
        assert {point["networks.code_channels"] for point in found} >= rates


@pytest.mark.parametrize("name", [name for name in SHIPPED if "rates" in name])
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
