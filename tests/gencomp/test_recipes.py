"""Recipes: what ships is valid, what is wrong is named, identity is what makes a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from gencomp import recipes, yaml_text
from gencomp.errors import InputError
from gencomp.recipes.schema import OptimizerSection
from gencomp.systems import build_system
from tests.conftest import ROOT


def raw(**overrides: Any) -> dict[str, Any]:
    return recipes.with_overrides(recipes.read("dplc_wae_photos"), overrides)


class TestShipped:
    def test_all_are_valid(self) -> None:
        stages = ("cae", "codec", "gc", "wae", "wasserstein_pp", "wgan_gp")
        digits, letters = ("codec", "wae", "wasserstein_pp"), ("codec", "wae")
        assert recipes.names() == [
            "classifier_mnist",
            *(
                f"dplc_{stage}_{images}"
                for stage in stages
                for images in (
                    "celeba",
                    *(("glyphs",) if stage in letters else ()),
                    "lsun",
                    *(("mnist",) if stage in digits else ()),
                    "photos",
                )
            ),
            *(
                f"gan_{name}"
                for name in (
                    "ade20k",
                    "cityscapes",
                    *(
                        f"conditional_{images}"
                        for images in ("ade20k", "cityscapes", "narrow", "shapes")
                    ),
                    *(f"distortion_{images}" for images in ("cityscapes", "narrow", "open_images")),
                    "narrow",
                    "open_images",
                    *(f"plus_{images}" for images in ("ade20k", "cityscapes", "narrow")),
                    "port_cityscapes",
                    *(
                        f"selective_{images}"
                        for images in ("ade20k", "cityscapes", "narrow", "shapes")
                    ),
                )
            ),
            "irec_one_level_photos",
            *(
                f"irec_rvae_{images}"
                for images in ("cifar10", "imagenet32", "narrow_cifar10", "photos")
            ),
            *(f"irec_two_level_{images}" for images in ("clic", "photos")),
            "pixel_classifier_narrow",
            *sorted(
                [
                    "urdp_celeba",
                    "urdp_glyphs",
                    "urdp_photos",
                    "urdp_universal_glyphs",
                    *(
                        f"urdp_{stage}{images}"
                        for stage in ("critic_", "", "refinement_", "universal_")
                        for images in ("mnist", "svhn")
                    ),
                ]
            ),
            *(f"vae_{kind}" for kind in ("conv_cifar10", "digits", "linear_mnist", "mnist")),
        ]
        for name in recipes.names():
            recipe = recipes.load(name)
            only = ("elbo", "end_to_end", "cross_entropy", "adversarial")
            stage = "" if recipe.stage in only else f"{recipe.stage}_"
            assert name.startswith(f"{recipe.system.removesuffix('_compression')}_{stage}")
            roles = {"codec": "generator", "critic": "decoder"}
            roles |= {"universal": "encoder", "refinement": "encoder"}
            expected = {roles[recipe.stage]} if recipe.stage in roles else set()
            if name in ("gan_narrow", "gan_open_images", "gan_plus_narrow"):
                expected = {"distortion"}
            assert set(recipe.parent_runs()) == expected

    def test_the_published_sizes(self) -> None:
        """Parameters of F, G and E + B as in the paper's code, 8 code channels; 0.03125 bpp."""
        import torch

        parent, codec = recipes.load("dplc_wae_celeba"), recipes.load("dplc_codec_celeba")
        with torch.device("meta"):
            first = build_system(parent, {})
            second = build_system(codec, {"generator": parent})

        def count(system: Any, *names: str) -> int:
            return sum(p.numel() for name in names for p in system.networks[name].parameters())

        assert count(first, "encoder") == 3_806_208
        assert count(first, "generator") == count(second, "generator") == 3_870_403
        assert count(second, "code_encoder", "latent_mapper") == 13_284_864 + 9_217 * 8
        with pytest.raises(TypeError):
            build_system(recipes.BaseRecipe.model_validate(_bare(parent)), {})

    def test_the_published_schedule(self) -> None:
        """1e-3 for epochs 0 to 29, 4e-4 for 30 to 49, 1.6e-4 for 50 to 54."""
        for name in ("dplc_wae_celeba", "dplc_codec_celeba"):
            recipe = recipes.load(name)
            assert recipe.training.epochs == 55
            rates = [recipe.optimizer.rate_at(epoch) for epoch in range(55)]
            assert rates == pytest.approx([1e-3] * 30 + [4e-4] * 20 + [1.6e-4] * 5)
            assert recipe.optimizer.rate_at(29.999) == 1e-3
            assert recipe.optimizer.betas == (0.5, 0.999)


def _bare(recipe: recipes.BaseRecipe) -> dict[str, Any]:
    keys = ("system", "stage", "data", "optimizer", "training", "evaluation")
    return {key: value for key, value in recipe.model_dump().items() if key in keys}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("loss.lambda", 3, "unknown key loss.lambda; allowed here are mmd_weight, prior_variance"),
        (
            "los.mmd_weight",
            3,
            "unknown key los; did you mean loss?",
        ),
        ("xyz.abc", 3, "unknown key xyz; allowed here are data, evaluation, latent_discriminator,"),
        ("loss.mmd_wieght", 3, "unknown key loss.mmd_wieght; did you mean loss.mmd_weight?"),
        ("mmd_weight", 3, "unknown key mmd_weight; did you mean loss.mmd_weight?"),
        (
            "training.mmd_weight",
            3,
            "unknown key training.mmd_weight; did you mean loss.mmd_weight?",
        ),
        ("critic.steps", 3, "unknown key critic; allowed here are data, evaluation, latent_disc"),
        ("optimzer.learning_rate", 3, "unknown key optimzer; did you mean optimizer?"),
        (
            "training.batch_size",
            3,
            "training.batch_size; did you mean data.batch_size or evaluation.batch_size?",
        ),
        (
            "data.mixture",
            [{"shards": "a", "weigth": 2}],
            "data.mixture.0.weigth; did you mean data.mixture.0.weight?",
        ),
        ("networks.width", "wide", "networks.width is 'wide', but it should be a valid integer"),
        ("networks.width", 0, "networks.width is 0, but it should be greater than or equal to 1"),
        ("networks.width", 1.5, "networks.width is 1.5, but it should be a valid integer"),
        (
            "loss.mmd_weight",
            float("nan"),
            "loss.mmd_weight is nan, but it should be a finite number",
        ),
        ("data.batch_size", 0, "data.batch_size is 0, but it should be greater than or equal to 1"),
        (
            "data.batch_size",
            1,
            "data.batch_size is 1, but the MMD and the statistics of batch norm need 2 images",
        ),
        ("evaluation.batch_size", 0, "evaluation.batch_size is 0, but"),
        ("evaluation.limit", 0, "evaluation.limit is 0, but"),
        ("data.shards", None, "data: exactly one of shards and mixture must be given"),
        ("optimizer.betas", [0.5], "optimizer.betas.1 is missing"),
        ("optimizer.betas", [0.5, 1.0], "optimizer.betas.1 is 1.0, but it should be less than 1"),
        ("optimizer.decay_epochs", [5, 3], "optimizer: decay_epochs must increase"),
        ("training.steps", 10, "training: exactly one of epochs and steps must be given"),
        ("training", 3, "training is 3, but"),
        (
            "system",
            "dplx",
            "system/stage is dplx/wae, allowed are dplc/wae, dplc/wgan_gp, dplc/",
        ),
        ("stage", ["codec"], "system/stage is dplc/['codec'], allowed are"),
        ("stage", None, "system/stage is dplc/None, allowed are"),
        ("stage", "codec", "parents is missing"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(key: str, value: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        recipes.validate(raw(**{key: value}), "my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "must be a mapping of sections, not list"),
        ("", "must be a mapping of sections, not NoneType"),
        ("a: [1\nb: 2", "is not valid YAML"),
    ],
)
def test_files_that_are_no_recipes(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        recipes.load(tmp_path / "r.yaml")


def test_missing_files_name_what_ships(tmp_path: Path) -> None:
    for source in (tmp_path / "none.yaml", "dplc_wae_foto"):
        with pytest.raises(InputError, match="classifier_mnist, dplc_cae_celeba, dplc_cae_lsun, "):
            recipes.read(source)


class TestOverrides:
    def test_words_are_split(self) -> None:
        words = [
            "r.yaml",
            "--name",
            "a.b",
            "--loss.mmd_weight",
            "3e1",
            "--data.batch-size=8",
            "--gpu",
        ]
        others, overrides = recipes.split_overrides(words)
        assert others == ["r.yaml", "--name", "a.b", "--gpu"]
        assert overrides == {"loss.mmd_weight": "3e1", "data.batch_size": 8}
        recipe = recipes.validate(raw(**overrides))
        assert recipe.model_dump()["loss"]["mmd_weight"] == 30

    def test_values_are_yaml(self) -> None:
        _, overrides = recipes.split_overrides(
            ["--optimizer.betas", "[0.1, 0.2]", "--training.epochs=null"]
        )
        assert overrides == {"optimizer.betas": [0.1, 0.2], "training.epochs": None}

    @pytest.mark.parametrize("words", [["--a.b"], ["--a.b", "[1"]])
    def test_wrong_ones(self, words: list[str]) -> None:
        with pytest.raises(InputError, match=r"--a\.b"):
            recipes.split_overrides(words)

    def test_the_original_stays_and_sections_are_made(self) -> None:
        original = {"a": {"b": 1}}
        assert recipes.with_overrides(original, {"a.b": 2, "c.d": 3}) == {
            "a": {"b": 2},
            "c": {"d": 3},
        }
        assert original == {"a": {"b": 1}}
        with pytest.raises(InputError, match=r"a\.b\.c: b is a value, not a section"):
            recipes.with_overrides(original, {"a.b.c": 2})

    def test_what_yaml_knows_beyond_json_is_refused_in_words(self) -> None:
        import datetime

        with pytest.raises(InputError, match=r"data\.split is datetime.date"):
            recipes.validate(raw(**{"data.split": datetime.date(2020, 1, 1)}))


class TestTransforms:
    CUT: ClassVar[dict[str, Any]] = {
        "data.transforms.resize": [72, 80],
        "data.transforms.crop": [64, 64],
    }

    def test_a_cut_of_training_images_asks_for_one_of_held_out_images(self) -> None:
        with pytest.raises(InputError) as refused:
            recipes.load("dplc_wae_photos", self.CUT)
        assert str(refused.value) == (
            "dplc_wae_photos: data.transforms cut the training images to a size, so"
            " evaluation.transforms must be stated: {resize: [72, 80], crop: [64, 64]} for held-out"
            " images of the same size, {} for whole ones"
        )

    def test_whole_images_may_be_meant(self) -> None:
        stated = recipes.load("dplc_wae_photos", self.CUT | {"evaluation.transforms": {}})
        assert stated.evaluation.transforms.size is None and not stated.evaluates_as_it_trains()
        # A run's copy says everything, and says the same.
        assert recipes.validate(yaml.safe_load(recipes.dump(stated))) == stated

    def test_flips_and_dither_are_no_cut(self) -> None:
        flipped = {"data.transforms.flip": True, "data.transforms.dither": True}
        assert recipes.load("dplc_wae_photos", flipped).evaluates_as_it_trains()

    def test_what_is_random_has_no_place_in_evaluations(self) -> None:
        with pytest.raises(InputError, match=r"evaluation\.transforms\.flip"):
            recipes.load("dplc_wae_photos", {"evaluation.transforms.flip": True})


class TestIdentity:
    def test_locations_are_not_part_of_it_but_what_lies_there_is(self) -> None:
        here = recipes.load("dplc_codec_photos")
        there = recipes.load("dplc_codec_photos", {"data.shards": "/x", "parents.generator": "/y"})
        assert recipes.identity(here, {"data": "h"}, {"generator": "w"}) == recipes.identity(
            there, {"data": "h"}, {"generator": "w"}
        )
        one = recipes.digest(recipes.identity(here, {"data": "h"}, {"generator": "w"}))
        assert len(one) == 16
        assert one != recipes.digest(recipes.identity(here, {"data": "i"}, {"generator": "w"}))
        assert one != recipes.digest(recipes.identity(here, {"data": "h"}, {"generator": "v"}))

    def test_every_value_is_part_of_it(self) -> None:
        flat = recipes.identity(recipes.load("dplc_wae_photos"), {"data": "h"}, {})
        for key in (
            "loss.mmd_weight",
            "training.seed",
            "optimizer.betas",
            "system",
            "evaluation.limit",
        ):
            assert key in flat

    def test_transforms_of_evaluations_count_where_they_are_others(self) -> None:
        """Whole images, and the training's cut, are what there was before they could be stated."""
        plain = recipes.identity(recipes.load("dplc_wae_photos"), {"data": "h"}, {})
        cut = {"data.transforms.crop": [64, 64]}
        same = recipes.load("dplc_wae_photos", cut | {"evaluation.transforms.crop": [64, 64]})
        whole = recipes.load("dplc_wae_photos", cut | {"evaluation.transforms": {}})
        found = recipes.identity(same, {"data": "h"}, {})
        assert found == {**plain, "data.transforms.crop": [64, 64]}
        assert recipes.identity(whole, {"data": "h"}, {}) == {
            **found,
            "evaluation.transforms.resize": None,
            "evaluation.transforms.crop": None,
        }

    def test_whole_scaled_images_count_where_they_are_asked_for(self) -> None:
        cut = {"data.transforms.resize": [72, 80], "evaluation.transforms.resize": [72, 80]}
        centres = recipes.load("dplc_wae_photos", cut)
        whole = recipes.load("dplc_wae_photos", cut | {"evaluation.transforms.whole": True})
        found = recipes.identity(whole, {"data": "h"}, {})
        assert found == recipes.identity(centres, {"data": "h"}, {}) | {
            "evaluation.transforms.resize": [72, 80],
            "evaluation.transforms.crop": None,
            "evaluation.transforms.whole": True,
        }
        assert centres.evaluation.transforms.size == (72, 80)
        assert whole.evaluation.transforms.size is None
        for wrong in ({"whole": True}, {"resize": [72, 80], "crop": [64, 64], "whole": True}):
            with pytest.raises(InputError, match="whole needs resize"):
                recipes.load("dplc_wae_photos", cut | {"evaluation.transforms": wrong})

    def test_how_files_are_written_does_not_count(self) -> None:
        plain = recipes.identity(recipes.load("irec_rvae_photos"), {"data": "h"}, {})
        other = recipes.load("irec_rvae_photos", {"codec.effort": "best", "codec.beams": 7})
        assert recipes.identity(other, {"data": "h"}, {}) == plain
        assert not any(key.startswith("codec.") for key in plain)

    def test_dump_and_load(self, tmp_path: Path) -> None:
        for name in recipes.names():
            recipe = recipes.with_absolute_paths(recipes.load(name))
            assert Path(recipe.data.shards).is_absolute()
            (tmp_path / "r.yaml").write_text(recipes.dump(recipe))
            assert recipes.load(tmp_path / "r.yaml") == recipe

    def test_addresses_stay_as_they_are(self) -> None:
        recipe = recipes.load("dplc_wae_photos", {"data.shards": "s3://bucket/set"})
        assert recipes.with_absolute_paths(recipe).data.shards == "s3://bucket/set"


class TestWriting:
    """How a finished run writes files, which its readers need not know."""

    def test_values_and_other_values(self) -> None:
        recipe = recipes.load("irec_one_level_photos")
        assert recipes.writing(recipe) == {
            "codec.coder": None,
            "codec.effort": "balanced",
            "codec.omega": None,
            "codec.oversampling": None,
            "codec.beams": None,
        }
        other = recipes.rewriting(recipe, {"codec.effort": "fast", "codec.omega": 4}, "run x")
        assert recipes.writing(other)["codec.effort"] == "fast"
        assert recipes.writing(other)["codec.omega"] == 4.0
        assert recipes.rewriting(other, recipes.writing(recipe), "run x") == recipe

    def test_what_was_learned_cannot_be_rewritten(self) -> None:
        """Values of a codec that its readers need are no such values."""
        for name, key, said in (
            ("irec_one_level_photos", "networks.filters", "only codec.coder, codec.effort, "),
            ("dplc_cae_photos", "codec.salt_bits", "nothing can be chosen when a run of dplc/cae"),
        ):
            with pytest.raises(InputError, match=rf"run x is trained, so --{key} .*{said}"):
                recipes.rewriting(recipes.load(name), {key: 3}, "run x")
            assert recipes.writing(recipes.load("dplc_cae_photos")) == {}
        with pytest.raises(InputError, match=r"run x: codec.effort is 'hard'"):
            recipes.rewriting(recipes.load("irec_rvae_photos"), {"codec.effort": "hard"}, "run x")


def test_rates_count_boundaries_passed() -> None:
    settings = OptimizerSection(learning_rate=1.0, decay_epochs=(0.5, 2), decay_factor=0.5)
    assert [settings.rate_at(e) for e in (0, 0.49, 0.5, 1.9, 2, 99)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_libyaml_reads_and_writes_what_python_does() -> None:
    """It does so for every file that ships, and for texts that YAML treats in its own way."""
    files = [*(ROOT / "gencomp" / "recipes").glob("*.yaml"), *(ROOT / "sweeps").glob("*.yaml")]
    texts = [file.read_text(encoding="utf-8") for file in files]
    own = {"a": "ünïcode – " * 20, "b": {"c d": [1, 2.5, None, True, [], {}]}, "e": "x: y\n# z"}
    texts += ["1e-3", "yes", "0x10", "~", "2020-01-01", "5_000", "1:30", yaml.safe_dump(own)]
    for text in texts:
        found = yaml_text.parse(text)
        assert found == yaml.safe_load(text)
        if isinstance(found, dict):
            plain = yaml.safe_dump(found, sort_keys=False, allow_unicode=True)
            assert yaml_text.dump(found) == plain
