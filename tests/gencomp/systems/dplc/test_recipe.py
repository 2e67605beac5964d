"""DPLC's recipes: published settings, and combinations that cannot be written down."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gencomp import recipes
from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Progress, System
from gencomp.systems import build_system
from gencomp.systems.dplc import recipe as dplc


def built(name: str, **overrides: Any) -> System:
    """The system of a recipe on the meta device, which has sizes without memory."""
    recipe = recipes.load(name, overrides)
    parents: dict[str, BaseRecipe] = {}
    if recipe.stage == "codec":
        named = [name.replace("codec", stage) for stage in ("wasserstein_pp", "wae")]
        parent = next(one for one in named if one in recipes.names())
        parents = {"generator": recipes.load(parent)}
    with torch.device("meta"):
        return build_system(recipe, parents)


def count(system: System, *names: str) -> int:
    return sum(p.numel() for name in names for p in system.networks[name].parameters())


@pytest.mark.parametrize("name", [name for name in recipes.names() if name.startswith("dplc")])
def test_every_recipe_builds_its_networks_and_phases(name: str) -> None:
    system = built(name)
    recipe = recipes.load(name)
    expected = {
        "wae": ["encoder", "generator"],
        "wgan_gp": ["critic", "generator"],
        "wasserstein_pp": ["critic", "encoder", "generator"],
        "codec": ["code_encoder", "code_tables", "generator", "latent_mapper"],
        "cae": ["code_encoder", "code_tables", "generator", "latent_mapper"],
        "gc": ["code_encoder", "code_tables", "critic", "generator", "latent_mapper"],
    }[recipe.stage]
    assert sorted(system.networks) == expected  # no network that no loss needs
    for phase in system.phases:
        assert system.optimizer(phase).param_groups[0]["params"]
        start = system.learning_rates(phase, Progress(0, 0, 1000))
        assert start == (system.optimizer(phase).defaults["lr"],)


@pytest.mark.parametrize("images", ["celeba", "lsun"])
def test_the_published_sizes(images: str) -> None:
    wpp = built(f"dplc_wasserstein_pp_{images}")
    assert count(wpp, "encoder") == count(built(f"dplc_wae_{images}"), "encoder") == 3_806_208
    assert count(wpp, "generator") == 3_870_403
    assert count(wpp, "critic") == count(built(f"dplc_wgan_gp_{images}"), "critic") == 3_073_792
    for n in (2, 8, 32, 128):
        codec = built(f"dplc_codec_{images}", **{"networks.code_channels": n})
        assert count(codec, "code_encoder", "latent_mapper") == 13_284_864 + 9_217 * n
        assert count(codec, "generator") == 3_870_403
    # Without noise input.
    assert count(built(f"dplc_cae_{images}"), "latent_mapper") == 10_564_352 - 36_864
    assert count(built(f"dplc_gc_{images}"), "latent_mapper") == 10_564_352
    weights = {"loss.mmd_weight": 0, "latent_discriminator.weight": 10}
    assert count(built(f"dplc_wae_{images}", **weights), "latent_discriminator") == 854_529


class TestPublishedSettings:
    def test_wgan_gp(self) -> None:
        recipe = recipes.load("dplc_wgan_gp_celeba")
        assert isinstance(recipe, dplc.WganGpRecipe)
        assert (recipe.data.batch_size, recipe.training.epochs) == (64, 165)
        for settings in (recipe.optimizer, recipe.critic.optimizer):
            assert (settings.learning_rate, settings.betas) == (1e-4, (0.5, 0.9))
            assert not settings.decay_epochs and not settings.weight_decay
        assert recipe.loss.adversarial_weight == 1
        assert (recipe.critic.steps, recipe.critic.penalty_weight) == (5, 10)
        assert recipe.critic.penalty_norm == "per_pixel"

    def test_wasserstein_pp(self) -> None:
        recipe = recipes.load("dplc_wasserstein_pp_celeba")
        assert isinstance(recipe, dplc.WassersteinPpRecipe)
        assert (recipe.data.batch_size, recipe.training.epochs) == (256, 165)
        assert recipe.optimizer.learning_rate == 3e-4
        assert recipe.critic.optimizer.learning_rate == 1e-4
        for settings in (recipe.optimizer, recipe.critic.optimizer):
            assert (settings.betas, settings.decay_epochs) == ((0.5, 0.999), (100, 140))
            assert settings.decay_factor == 0.4
        loss, critic = recipe.loss, recipe.critic
        assert (loss.reconstruction_weight, loss.mmd_weight) == (1, 100)
        assert (loss.adversarial_weight, loss.gen_latents) == (2.5e-5, "enc")
        assert not loss.adversarial_to_encoder
        assert (critic.latents, critic.steps, critic.penalty_weight) == ("interp", 5, 10)
        assert critic.penalty_norm == "per_pixel"

    @pytest.mark.parametrize(("name", "weight"), [("wae", 100), ("codec", 300)])
    def test_wae_and_codec(self, name: str, weight: float) -> None:
        """1e-3 for epochs 0 to 29, 4e-4 for 30 to 49, 1.6e-4 for 50 to 54."""
        recipe = recipes.load(f"dplc_{name}_celeba")
        assert isinstance(recipe, dplc.WaeRecipe | dplc.CodecRecipe)
        assert (recipe.data.batch_size, recipe.loss.mmd_weight) == (256, weight)
        rates = [recipe.optimizer.rate_at(epoch) for epoch in range(55)]
        assert rates == pytest.approx([1e-3] * 30 + [4e-4] * 20 + [1.6e-4] * 5)

    @pytest.mark.parametrize("stage", ["wae", "wgan_gp", "wasserstein_pp", "codec", "cae", "gc"])
    def test_lsun_has_as_many_updates_as_celeba(self, stage: str) -> None:
        """LSUN has 3,023,042 images, not 192,599; decays come at the same parts of the run."""
        lsun, celeba = (recipes.load(f"dplc_{stage}_{images}") for images in ("lsun", "celeba"))
        assert lsun.training.epochs is not None and celeba.training.epochs is not None
        expected = celeba.training.epochs * 192_599 / 3_023_042
        assert lsun.training.epochs == pytest.approx(expected, rel=0.01)
        for ours, theirs in zip(
            lsun.optimizer.decay_epochs, celeba.optimizer.decay_epochs, strict=True
        ):
            part = theirs / celeba.training.epochs
            assert ours / lsun.training.epochs == pytest.approx(part, abs=0.01)


WGAN, WPP, WAE = "dplc_wgan_gp_photos", "dplc_wasserstein_pp_photos", "dplc_wae_photos"


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        (WAE, {"critic.steps": 5}, "unknown key critic; allowed here are data"),
        (WGAN, {"latent_discriminator.weight": 1}, "unknown key latent_discriminator"),
        (WGAN, {"loss.mmd_weight": 1}, "unknown key loss.mmd_weight; allowed here are adversarial"),
        (WGAN, {"critic.latents": "enc"}, "unknown key critic.latents; allowed here are optimizer"),
        (WGAN, {"networks.latent_batch_norm": True}, "unknown key networks.latent_batch_norm"),
        ("dplc_cae_photos", {"networks.stochastic": True}, "unknown key networks.stochastic"),
        ("dplc_cae_photos", {"loss.mmd_weight": 1}, "unknown key loss"),
        ("dplc_gc_photos", {"critic.latents": "prior"}, "unknown key critic.latents"),
        (
            WAE,
            {"latent_discriminator.weight": 2},
            "loss.mmd_weight is 10 and latent_discriminator.weight is 2, but one must be 0",
        ),
        (WPP, {"latent_discriminator.weight": 2}, "but one must be 0: Dz stands in place of"),
        ("dplc_codec_photos", {"latent_discriminator.weight": 2}, "but one must be 0"),
        (
            WPP,
            {"loss.gen_latents": "prior", "loss.adversarial_to_encoder": True},
            "loss: adversarial_to_encoder is true, but with gen_latents prior no latent comes from",
        ),
        (WPP, {"critic.latents": "noise"}, "critic.latents is 'noise', but it should be 'enc', 'i"),
        (
            WPP,
            {"critic.steps": 0},
            "critic.steps is 0, but it should be greater than or equal",
        ),
        (
            WPP,
            {"networks.bn_mode": "eval"},
            "networks.bn_mode is 'eval', but it should be 'fro",
        ),
        *(
            (name, {"data.batch_size": 1}, f"data.batch_size is 1, but {what} need 2 images or")
            for name, what in (
                (WAE, "the MMD and the statistics of batch norm"),
                (WPP, "the MMD and the statistics of batch norm"),
                ("dplc_codec_photos", "the MMD and the statistics of batch norm"),
                (WGAN, "the statistics of batch norm"),
                ("dplc_cae_photos", "the statistics of batch norm"),
                ("dplc_gc_photos", "the statistics of batch norm"),
            )
        ),
        (
            WAE,
            {"data.batch_size": 1, "loss.mmd_weight": 0, "latent_discriminator.weight": 1},
            "data.batch_size is 1, but the statistics of batch norm need 2 images or more",
        ),
        *(
            (
                WAE,
                {"networks.bn_mode": "batch", f"evaluation.{key}": 1},
                f"evaluation.{key} is 1, but the batch statistics of networks.bn_mode batch need 2",
            )
            for key in ("batch_size", "limit")
        ),
        (
            "dplc_gc_photos",
            {"networks.code_channels": 64},
            "networks: code_channels is 64, allowed are 1 to latent_dim, 32",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused_in_a_sentence(
    name: str, overrides: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as caught:
        recipes.load(name, overrides)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [WAE, WGAN, WPP, "dplc_codec_photos", "dplc_cae_photos"])
def test_images_may_be_evaluated_one_by_one(name: str) -> None:
    recipe = recipes.load(name, {"evaluation.batch_size": 1, "evaluation.limit": 1})
    assert (recipe.evaluation.batch_size, recipe.evaluation.limit) == (1, 1)


def test_an_optimizer_that_is_half_given_keeps_the_other_defaults() -> None:
    recipe = recipes.load(WGAN, {"critic": {"optimizer": {"weight_decay": 0.1}}})
    assert isinstance(recipe, dplc.WganGpRecipe)
    assert recipe.critic.optimizer.learning_rate == 1e-4
    assert dplc.LatentDiscriminatorSection().optimizer.learning_rate == 5e-4


def test_recipes_are_read_without_torch() -> None:
    """They are checked before anything heavy starts."""
    import subprocess
    import sys

    program = "import sys, gencomp.recipes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
